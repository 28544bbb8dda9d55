"""The store: results of stages, each under the hash of its inputs."""
