//! Bringing up the CPUs that the kernel was told to leave alone.
//!
//! QEMU's emulation of several CPUs can lose a race with a kernel that patches its own code, which it does mostly
//! while it boots and loads modules. Such a guest therefore starts with one CPU (`maxcpus=1`).

use std::{fs, path::Path};

const CPUS: &str = "/sys/devices/system/cpu";

/// Brings every CPU online that is not, and says what went wrong.
pub(super) fn bring_online() -> Vec<String> {
    bring_online_in(Path::new(CPUS))
}

fn bring_online_in(cpus: &Path) -> Vec<String> {
    let entries = match fs::read_dir(cpus) {
        Ok(entries) => entries,
        Err(error) => return vec![format!("cannot list the CPUs: {error}")],
    };
    let mut switches: Vec<_> = entries.flatten().map(|entry| entry.path().join("online")).collect();
    switches.sort();
    let offline = |switch: &Path| fs::read_to_string(switch).is_ok_and(|state| state.trim() == "0");
    let problem = |switch: &Path| {
        let error = fs::write(switch, "1").err()?;
        Some(format!("cannot bring a CPU online by {}: {error}", switch.display()))
    };
    switches.iter().filter(|switch| offline(switch)).filter_map(|switch| problem(switch)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_that_are_offline_are_switched() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, state) in [("cpu1", Some("1\n")), ("cpu2", Some("0\n")), ("cpufreq", None)] {
            fs::create_dir(dir.path().join(cpu)).unwrap();
            if let Some(state) = state {
                fs::write(dir.path().join(cpu).join("online"), state).unwrap();
            }
        }
        assert!(bring_online_in(dir.path()).is_empty());
        assert_eq!(fs::read_to_string(dir.path().join("cpu1/online")).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(dir.path().join("cpu2/online")).unwrap(), "1");
        assert!(!dir.path().join("cpufreq/online").exists());
    }

    #[test]
    fn cpus_that_cannot_be_listed_are_a_problem_to_tell() {
        let problems = bring_online_in(Path::new("/nonexistent"));
        assert!(problems[0].starts_with("cannot list the CPUs"), "{problems:?}");
    }
}
