//! A guest that is ready for a job.
