//! Runs jobs: the stages in a fresh guest, the polling loop, the fleet of one host.
