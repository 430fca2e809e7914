//! A small seeded generator for simulations and tests: the same seed gives the same run on every machine.
//!
//! xoshiro256** of Blackman and Vigna, its state filled by splitmix64 as they recommend. Not for keys, tokens or
//! anything that must not be guessed.

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// The stream of `seed`. Seeds that differ in any bit give unrelated streams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut next = seed;
        let state = [(); 4].map(|()| {
            next = next.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = next;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        Self { state }
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A number from 0 up to, not including, `bound`; 0 when that is 0. Its bias is under `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True once in 1 / `probability` times: never at 0, always at 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of splitmix64 for the seed 0 and of xoshiro256** after them, from the authors' C code.
    #[test]
    fn the_stream_is_the_published_one() {
        let mut prng = Prng::new(0);
        assert_eq!(prng.state[0], 0xe220_a839_7b1d_cdaf);
        assert_eq!(prng.next_u64(), 0x99ec_5f36_cb75_f2b4);
        assert_eq!(prng.next_u64(), 0xbf6e_1f78_4956_452a);
    }

    #[test]
    fn bounds_hold() {
        let mut prng = Prng::new(1);
        let mut seen = [false; 6];
        for _ in 0..1_000 {
            seen[prng.below(6) as usize] = true;
            assert!((0.0..1.0).contains(&prng.unit()));
            assert!(!prng.chance(0.0));
            assert!(prng.chance(1.0));
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(prng.below(0), 0);
    }

    #[test]
    fn chances_come_out_about_right() {
        let mut prng = Prng::new(2);
        let hits = (0..100_000).filter(|_| prng.chance(0.1)).count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
    }
}
