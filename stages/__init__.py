"""What the stages are made of; to import it makes `import torchvision` work beside a CPU torch."""

from bonsai.stages.imports.torchvision_hook import install

install()
