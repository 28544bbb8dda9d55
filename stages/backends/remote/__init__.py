"""A device that is another machine, reached by the system's OpenSSH.

`remote_device.py` is the `Device`, `line.py` the connection that is made again where it is lost, `connection.py` one ssh process. On the device,
`agent.py` answers with that machine's own `LocalDevice`, and `files.py` keeps what was sent by its hash. `frames.py` is what both say to each other.
"""
