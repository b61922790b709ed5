//! Whether this host has what Firecracker cannot do without.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// The kernel's interface to the processor's virtualization.
const DEVICE: &str = "/dev/kvm";

/// Why KVM cannot be opened, and what to do about it. That it can be opened does not mean that guests boot.
#[must_use]
pub fn problem() -> Option<String> {
    explain(Path::new(DEVICE), &fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn explain(device: &Path, cpuinfo: &str) -> Option<String> {
    let error = File::options().read(true).write(true).open(device).err()?;
    let name = device.display();
    Some(match error.kind() {
        io::ErrorKind::NotFound if has_flag(cpuinfo) => {
            format!("there is no {name}: load the module (`modprobe kvm_intel` or `modprobe kvm_amd`)")
        }
        io::ErrorKind::NotFound => format!(
            "there is no {name}, and the processor shows neither vmx nor svm: switch virtualization on in the firmware, \
             or nested virtualization in the hypervisor that this host runs on"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{name} may not be opened by this user: add it to the group kvm (`usermod -aG kvm USER`)")
        }
        _ => format!("{name} cannot be opened: {error}"),
    })
}

fn has_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.flat_map(str::split_whitespace).any(|flag| matches!(flag, "vmx" | "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let missing = Path::new("/nonexistent/kvm");
        insta::assert_snapshot!(explain(missing, "flags : fpu vmx").unwrap(), @"there is no /nonexistent/kvm: load the module (`modprobe kvm_intel` or `modprobe kvm_amd`)");
        insta::assert_snapshot!(explain(missing, "flags : fpu").unwrap(), @"there is no /nonexistent/kvm, and the processor shows neither vmx nor svm: switch virtualization on in the firmware, or nested virtualization in the hypervisor that this host runs on");
        assert_eq!(explain(Path::new("/dev/null"), ""), None);
    }
}
