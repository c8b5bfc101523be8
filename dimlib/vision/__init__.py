"""Networks for images: a U-Net, and a U-Net with a second network that corrects its output."""

from .second_look import SecondLook
from .unet import UNet

__all__ = ["SecondLook", "UNet"]
