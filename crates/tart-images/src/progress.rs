//! How far the layers of a pull are.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Layers that one line shows; what is more is counted.
const SHOWN: usize = 4;

/// How often a line is written.
pub(crate) const INTERVAL: Duration = Duration::from_secs(3);

/// A layer and how much of it is here.
#[derive(Debug)]
pub(crate) struct LayerProgress {
    name: String,
    size: u64,
    done: AtomicU64,
}

impl LayerProgress {
    pub(crate) fn set(&self, bytes: u64) {
        self.done.store(bytes.min(self.size), Ordering::Relaxed);
    }

    pub(crate) fn finish(&self) {
        self.set(self.size);
    }
}

/// All layers of one pull.
#[derive(Debug, Default)]
pub(crate) struct PullProgress {
    layers: Vec<Arc<LayerProgress>>,
}

impl PullProgress {
    /// Adds a layer by its digest, and its size in bytes.
    pub(crate) fn add(&mut self, digest: &str, size: u64) -> Arc<LayerProgress> {
        let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        let name = hex.chars().take(12).collect();
        let layer = Arc::new(LayerProgress { name, size, done: AtomicU64::new(0) });
        self.layers.push(Arc::clone(&layer));
        layer
    }

    /// Bytes in all.
    pub(crate) fn total(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// One line: the whole, and the layers on their way.
    pub(crate) fn line(&self) -> String {
        let done = |layer: &LayerProgress| layer.done.load(Ordering::Relaxed);
        let whole: u64 = self.layers.iter().map(|layer| done(layer)).sum();
        let complete = self.layers.iter().filter(|layer| done(layer) == layer.size).count();
        let mut text = format!(
            "Downloaded {} of {}, {complete} of {} layers",
            bytes(whole),
            bytes(self.total()),
            self.layers.len()
        );
        let underway: Vec<_> =
            self.layers.iter().filter(|layer| (1..layer.size).contains(&done(layer))).collect();
        for (position, layer) in underway.iter().take(SHOWN).enumerate() {
            let percent = done(layer) * 100 / layer.size.max(1);
            let comma = if position == 0 { ": " } else { ", " };
            // Writing to memory cannot fail.
            let _ok = write!(text, "{comma}{} {percent}% of {}", layer.name, bytes(layer.size));
        }
        if underway.len() > SHOWN {
            let _ok = write!(text, " and {} more", underway.len() - SHOWN);
        }
        text
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if count >= unit {
            return format!("{}.{} {name}", count / unit, count % unit * 10 / unit);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_whole_and_the_layers_on_their_way() {
        let mut progress = PullProgress::default();
        let layers: Vec<_> =
            (0..7).map(|n| progress.add(&format!("sha256:{n}aaaaaaaaaaaaaaaaaaa"), 100 << 20)).collect();
        insta::assert_snapshot!(progress.line(), @"Downloaded 0 B of 700.0 MiB, 0 of 7 layers");
        layers[0].finish();
        layers[1].set(5 << 20);
        insta::assert_snapshot!(progress.line(), @"Downloaded 105.0 MiB of 700.0 MiB, 1 of 7 layers: 1aaaaaaaaaaa 5% of 100.0 MiB");
        layers.iter().skip(1).for_each(|layer| layer.set(50 << 20));
        insta::assert_snapshot!(progress.line(), @"Downloaded 400.0 MiB of 700.0 MiB, 1 of 7 layers: 1aaaaaaaaaaa 50% of 100.0 MiB, 2aaaaaaaaaaa 50% of 100.0 MiB, 3aaaaaaaaaaa 50% of 100.0 MiB, 4aaaaaaaaaaa 50% of 100.0 MiB and 2 more");
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(1), "1 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
    }
}
