//! The numbers of running jobs (`CI_CONCURRENT_ID` and `CI_CONCURRENT_PROJECT_ID`).

use std::collections::{BTreeSet, HashMap};

use super::entry::RunnerKey;

/// The numbers in use.
#[derive(Debug, Default)]
pub(super) struct Slots {
    runners: HashMap<RunnerKey, BTreeSet<u32>>,
    projects: HashMap<(RunnerKey, i64), BTreeSet<u32>>,
}

/// The numbers of one job, to be given back by [`Slots::release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) runner: RunnerKey,
    pub(super) project: i64,
    /// The smallest free one among the jobs of the runner.
    pub(super) id: u32,
    /// The same among its jobs of the project.
    pub(super) project_id: u32,
}

impl Slots {
    pub(super) fn take(&mut self, runner: &RunnerKey, project: i64) -> Slot {
        let id = take_smallest(self.runners.entry(runner.clone()).or_default());
        let project_id = take_smallest(self.projects.entry((runner.clone(), project)).or_default());
        Slot { runner: runner.clone(), project, id, project_id }
    }

    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(taken) = self.runners.get_mut(&slot.runner) {
            taken.remove(&slot.id);
        }
        let key = (slot.runner, slot.project);
        if let Some(taken) = self.projects.get_mut(&key) {
            taken.remove(&slot.project_id);
        }
        self.runners.retain(|_, taken| !taken.is_empty());
        self.projects.retain(|_, taken| !taken.is_empty());
    }
}

fn take_smallest(taken: &mut BTreeSet<u32>) -> u32 {
    let free = (0..).find(|id| !taken.contains(id)).unwrap_or(u32::MAX);
    taken.insert(free);
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_free_numbers_are_taken() {
        let mut slots = Slots::default();
        let key = RunnerKey::new("https://gitlab.example.com", "token");
        let first = slots.take(&key, 7);
        let second = slots.take(&key, 8);
        let third = slots.take(&key, 7);
        assert_eq!([first.id, second.id, third.id], [0, 1, 2]);
        assert_eq!([first.project_id, second.project_id, third.project_id], [0, 0, 1]);
        slots.release(first);
        let again = slots.take(&key, 8);
        assert_eq!((again.id, again.project_id), (0, 1));
        for slot in [second, third, again] {
            slots.release(slot);
        }
        assert!(slots.runners.is_empty() && slots.projects.is_empty());
    }
}
