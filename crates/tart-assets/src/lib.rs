//! Guest kernel, initramfs, helper disk and default image: built, verified, cached by content.
