//! The audio level that travels with each frame (RFC 6464).

/// The level of silence, and of anything quieter than -127 dBov.
pub const LEVEL_SILENCE: u8 = 127;

/// The level of samples between -1 and 1, as -dBov: 0 is the overload point, [`LEVEL_SILENCE`] silence.
#[must_use]
pub fn level_of(samples: &[f32]) -> u8 {
    if samples.is_empty() {
        return LEVEL_SILENCE;
    }
    let energy: f64 = samples.iter().map(|&sample| f64::from(sample) * f64::from(sample)).sum();
    let mean = energy / samples.len() as f64;
    if mean <= 0.0 {
        return LEVEL_SILENCE;
    }
    // 10 log10 of the mean square is 20 log10 of the root mean square.
    let level = (-10.0 * mean.log10()).round();
    level.clamp(0.0, f64::from(LEVEL_SILENCE)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_root_mean_square() {
        assert_eq!(level_of(&[1.0, -1.0, 1.0, -1.0]), 0);
        assert_eq!(level_of(&[0.1; 960]), 20);
        assert_eq!(level_of(&[0.01; 960]), 40);
        assert_eq!(level_of(&[0.0; 960]), LEVEL_SILENCE);
        assert_eq!(level_of(&[]), LEVEL_SILENCE);
        assert_eq!(level_of(&[1e-9; 960]), LEVEL_SILENCE);
        assert_eq!(level_of(&[4.0; 960]), 0, "clipped, not negative");
    }
}
