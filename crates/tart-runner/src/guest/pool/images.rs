//! Which images the machines of the pool have: those of the jobs that came last, in proportion. Pure.

use std::collections::VecDeque;

use tart_assets::ImageDisk;

/// Jobs whose images are remembered.
const REMEMBERED: usize = 16;

/// The images of the last jobs, the latest first.
#[derive(Debug, Default)]
pub(super) struct LastImages(VecDeque<ImageDisk>);

impl LastImages {
    /// A job came with this image.
    pub(super) fn note(&mut self, image: &ImageDisk) {
        self.0.push_front(image.clone());
        self.0.truncate(REMEMBERED);
    }

    /// No machine gets this image until a job comes with it again.
    pub(super) fn forget(&mut self, image: &ImageDisk) {
        self.0.retain(|known| known != image);
    }

    /// What the next machine gets, when those that wait have `waiting`: each image has as large a share of the machines
    /// as of the last jobs. `None` if no job came yet.
    pub(super) fn next<'a>(&self, waiting: impl Iterator<Item = &'a ImageDisk> + Clone) -> Option<ImageDisk> {
        let mut best: Option<(&ImageDisk, usize, usize)> = None;
        for (position, image) in self.0.iter().enumerate() {
            if self.0.iter().take(position).any(|earlier| earlier == image) {
                continue;
            }
            let jobs = self.0.iter().filter(|other| *other == image).count();
            let machines = waiting.clone().filter(|other| *other == image).count() + 1;
            // Of equals the one that was wanted last.
            if best.is_none_or(|(_, most, shared)| jobs * shared > most * machines) {
                best = Some((image, jobs, machines));
            }
        }
        best.map(|(image, ..)| image.clone())
    }

    /// Chooses among the images of the machines that wait, the oldest machine first. Never one that has another image.
    pub(super) fn choose(&self, wanted: &ImageDisk, waiting: &[Option<&ImageDisk>]) -> Choice {
        let of = |image: Option<&ImageDisk>| waiting.iter().position(|other| *other == image);
        if let Some(position) = of(Some(wanted)).or_else(|| of(None)) {
            return Choice::Take(position);
        }
        let Some((oldest, others)) = waiting.split_first() else { return Choice::Nothing };
        let next = self.next(others.iter().flatten().copied());
        if next.as_ref() == *oldest { Choice::Nothing } else { Choice::GiveWay(0) }
    }
}

/// Which of the waiting machines a job with an image takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The one at this position: it has the image, or none.
    Take(usize),
    /// None of them: all have other images. The one at this position, which waited longest, is to make room for one with
    /// another image.
    GiveWay(usize),
    /// None of them.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> ImageDisk {
        ImageDisk {
            path: name.into(),
            fstype: "squashfs",
            digest: name.to_owned(),
            config: tart_assets::ImageConfig::default(),
        }
    }

    fn last(names: &[&str]) -> LastImages {
        let mut last = LastImages::default();
        names.iter().for_each(|name| last.note(&image(name)));
        last
    }

    fn next(last: &LastImages, waiting: &[&str]) -> Option<String> {
        let waiting: Vec<_> = waiting.iter().map(|name| image(name)).collect();
        last.next(waiting.iter()).map(|image| image.digest)
    }

    #[test]
    fn machines_have_images_as_the_last_jobs_had() {
        let last = last(&["a", "a", "b", "a"]);
        assert_eq!(next(&last, &[]).as_deref(), Some("a"));
        assert_eq!(next(&last, &["a"]).as_deref(), Some("a"));
        assert_eq!(next(&last, &["a", "a"]).as_deref(), Some("a"));
        assert_eq!(next(&last, &["a", "a", "a"]).as_deref(), Some("b"));
        assert_eq!(next(&LastImages::default(), &["a"]), None);
    }

    #[test]
    fn of_equals_the_last_is_next_and_old_jobs_are_forgotten() {
        assert_eq!(next(&last(&["a", "b"]), &[]).as_deref(), Some("b"));
        let mut many = vec!["a"];
        many.extend(["b"; REMEMBERED]);
        let mut last = last(&many);
        assert_eq!(next(&last, &["b", "b", "b"]).as_deref(), Some("b"));
        last.forget(&image("b"));
        assert_eq!(next(&last, &[]), None);
    }

    #[test]
    fn a_job_never_takes_a_machine_with_anothers_image() {
        let (a, b) = (image("a"), image("b"));
        let from = |waiting: &[Option<&ImageDisk>]| last(&["a"]).choose(&a, waiting);
        assert_eq!(from(&[None, Some(&b), Some(&a)]), Choice::Take(2));
        assert_eq!(from(&[Some(&b), None]), Choice::Take(1));
        assert_eq!(from(&[Some(&b), Some(&b)]), Choice::GiveWay(0));
        assert_eq!(from(&[]), Choice::Nothing);
        let mut user = a.clone();
        user.config.user = "1".to_owned();
        assert_eq!(from(&[Some(&user)]), Choice::GiveWay(0));
    }

    #[test]
    fn a_machine_that_would_be_made_again_does_not_give_way() {
        let (a, b) = (image("a"), image("b"));
        assert_eq!(last(&["b", "b", "a"]).choose(&a, &[Some(&b)]), Choice::Nothing);
        assert_eq!(last(&["b", "a", "a"]).choose(&a, &[Some(&b)]), Choice::GiveWay(0));
    }
}
