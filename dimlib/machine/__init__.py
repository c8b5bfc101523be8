"""What the method needs from the machine: files, memory, devices and precision, and checks of what it is given."""
