"""Networks for images: a U-Net, and a U-Net that looks at its own answer once more."""

from .second_look import SecondLook
from .unet import UNet

__all__ = ["SecondLook", "UNet"]
