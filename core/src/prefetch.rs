//! Telling the processor what will be needed.
#![expect(unsafe_code, reason = "there is no safe form of it")]

use std::ptr;

/// What a processor fetches from memory at a time.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// Tells the processor to fetch something that is needed soon, if it can be told: it changes nothing but how long that takes. Of
/// what begins within a line, the last may be missed.
pub fn prefetch<T>(soon: &T) {
    prefetch_front::<T>(soon, size_of::<T>());
}

/// The same for its first bytes alone: a processor waits for only so many lines at a time.
pub fn prefetch_front<T>(soon: &T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..bytes.min(size_of::<T>())).step_by(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is within what is borrowed, and fetching ahead reads nothing that a program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::from_ref(soon).cast::<i8>().add(offset)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (soon, bytes);
}
