"""Networks that can be named, and the functions that build them; apart from `registry.py`, because a list of names needs no torch."""

FACTORIES = {
    "resnet20": "bonsai.stages.networks.cifar_resnet:resnet20",
    "resnet8": "bonsai.stages.networks.cifar_resnet:resnet8",
    "resnet18": "bonsai.stages.networks.torchvision_models:resnet18",
    "resnet50": "bonsai.stages.networks.torchvision_models:resnet50",
    "mobilenet_v2": "bonsai.stages.networks.torchvision_models:mobilenet_v2",
    "mobilenet_v3_small": "bonsai.stages.networks.torchvision_models:mobilenet_v3_small",
    "efficientnet_b0": "bonsai.stages.networks.torchvision_models:efficientnet_b0",
    "regnet_x_400mf": "bonsai.stages.networks.torchvision_models:regnet_x_400mf",
    "regnet_y_400mf": "bonsai.stages.networks.torchvision_models:regnet_y_400mf",
    "densenet121": "bonsai.stages.networks.torchvision_models:densenet121",
}
