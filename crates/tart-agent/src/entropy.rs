//! Randomness from the host for the kernel's pool.
//!
//! Two guests restored from one snapshot have the same pool until new randomness is mixed in.

use std::os::fd::AsFd;

use rustix::{
    fs::{Mode, OFlags},
    ioctl::{NoArg, Setter, opcode},
};
use tart_proto::message::Failure;

use crate::failure;

/// Fewest bytes that count as a seed.
const MIN_SEED: usize = 32;

/// Bytes given to the kernel at once.
const CHUNK: usize = 256;

/// `struct rand_pool_info` with room for one chunk.
#[repr(C)]
struct PoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; CHUNK],
}

/// The kernel defines `RNDADDENTROPY` with the size of two integers, not of the whole structure.
const RND_ADD_ENTROPY: rustix::ioctl::Opcode = opcode::write::<[libc::c_int; 2]>(b'R', 0x03);
const RND_RESEED_CRNG: rustix::ioctl::Opcode = opcode::none(b'R', 0x07);

/// Mixes `seed` into the kernel's pool, credits it in full, and reseeds the generator from the pool.
pub(crate) fn reseed(seed: &[u8]) -> Result<(), Failure> {
    if seed.len() < MIN_SEED {
        return Err(failure::invalid(format!("a seed needs {MIN_SEED} bytes, not {}", seed.len())));
    }
    let failed = |e| failure::system("cannot seed the kernel's random generator", e);
    let device =
        rustix::fs::open("/dev/urandom", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    for chunk in seed.chunks(CHUNK) {
        add(&device, chunk).map_err(failed)?;
    }
    #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { rustix::ioctl::ioctl(&device, NoArg::<RND_RESEED_CRNG>::new()) }.map_err(failed)
}

fn add(device: impl AsFd, chunk: &[u8]) -> rustix::io::Result<()> {
    let len = libc::c_int::try_from(chunk.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let mut info = PoolInfo { entropy_count: len * 8, buf_size: len, buf: [0; CHUNK] };
    for (to, from) in info.buf.iter_mut().zip(chunk) {
        *to = *from;
    }
    #[expect(unsafe_code, reason = "rustix has no call for this ioctl")]
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info`: the two integers, then `buf_size` bytes, all inside `info`.
    unsafe {
        rustix::ioctl::ioctl(device, Setter::<RND_ADD_ENTROPY, PoolInfo>::new(info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_numbers_are_the_kernels() {
        assert_eq!(RND_ADD_ENTROPY, 0x4008_5203);
        assert_eq!(RND_RESEED_CRNG, 0x5207);
    }

    #[test]
    fn a_short_seed_is_refused() {
        assert_eq!(reseed(&[1; 31]).unwrap_err().message, "a seed needs 32 bytes, not 31");
    }
}
