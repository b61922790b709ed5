//! How a job's guest reaches the network: plans and host-side relays.
