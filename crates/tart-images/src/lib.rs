//! Images of jobs: pull policies, the store of pulled images, quota and eviction.
