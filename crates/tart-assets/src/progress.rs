//! Telling a person what takes so long.

/// Hears of long steps. Calls come from the thread that builds.
pub trait Progress: Send + Sync {
    /// A step begins, such as "building the helper disk". The one before has ended.
    fn step(&self, text: &str);

    /// Bytes done so far within the step, and how many there will be if that is known.
    fn bytes(&self, done: u64, total: Option<u64>) {
        let _unused = (done, total);
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _text: &str) {}
}
