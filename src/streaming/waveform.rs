//! Waveforms as numbers and as pictures.

use std::fmt::Write as _;

use crate::transcode::{BASE_SAMPLES, Peaks, SAMPLE_RATE_HZ};

/// How many samples at 48 kHz a point may stand for: from a hundredth of a second, each four times the one before.
pub const ZOOMS: [u32; 5] = [BASE_SAMPLES, 4 * BASE_SAMPLES, 16 * BASE_SAMPLES, 64 * BASE_SAMPLES, 256 * BASE_SAMPLES];

/// The most points of one answer.
pub const POINTS_MAX: usize = 100_000;

/// Points that are enough for a screen: the zoom where none is asked for.
const POINTS_ENOUGH: usize = 4_000;

/// The largest picture in pixels.
pub const WIDTH_MAX: u32 = 4_096;
/// See [`WIDTH_MAX`].
pub const HEIGHT_MAX: u32 = 1_024;

/// The lowest and the highest sample of a stretch, in 1/127 of full scale.
pub type Pair = (i8, i8);

/// How many points a zoom has.
#[must_use]
pub fn points(peaks: &Peaks, zoom: u32) -> usize {
    peaks.pairs().len().div_ceil(factor(zoom))
}

/// The points of a zoom, one of [`ZOOMS`].
#[must_use]
pub fn zoomed(peaks: &Peaks, zoom: u32) -> Vec<Pair> {
    peaks.zoomed(factor(zoom))
}

/// The finest zoom with points enough for a screen and no more.
#[must_use]
pub fn zoom_of_a_screen(peaks: &Peaks) -> u32 {
    let fits = |zoom: &u32| points(peaks, *zoom) <= POINTS_ENOUGH;
    ZOOMS.into_iter().find(fits).unwrap_or(ZOOMS[ZOOMS.len() - 1])
}

fn factor(zoom: u32) -> usize {
    (zoom / BASE_SAMPLES).max(1) as usize
}

/// A picture to be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// In pixels, from 1 to [`WIDTH_MAX`].
    pub width: u32,
    /// In pixels, from 1 to [`HEIGHT_MAX`].
    pub height: u32,
    /// Red, green, blue; there is nothing behind the wave.
    pub color: [u8; 3],
}

impl Picture {
    /// The lowest and the highest sample of each column.
    fn columns(&self, peaks: &Peaks) -> Vec<Pair> {
        let pairs = peaks.pairs();
        let at = |column: u32| (column as usize * pairs.len()) / self.width as usize;
        let widest = |column: u32| {
            let from = at(column).min(pairs.len().saturating_sub(1));
            let until = at(column + 1).max(from + 1).min(pairs.len());
            let pairs = &pairs[from.min(until)..until];
            pairs.iter().fold((0, 0), |(low, high): Pair, pair| (low.min(pair.0), high.max(pair.1)))
        };
        (0..self.width).map(widest).collect()
    }

    /// The rows, from the top, between which a column is filled: silence is a line.
    fn rows(&self, (low, high): Pair) -> (u32, u32) {
        let row = |value: i8| {
            let from_top = (127.0 - f64::from(value)) / 254.0 * f64::from(self.height);
            (from_top.round().max(0.0) as u32).min(self.height)
        };
        let (top, bottom) = (row(high).min(self.height - 1), row(low));
        (top, bottom.max(top + 1))
    }

    /// As SVG: one path, scaled to whatever size it is shown in.
    #[must_use]
    pub fn svg(&self, peaks: &Peaks) -> String {
        let Self { width, height, color: [red, green, blue] } = *self;
        let mut path = String::with_capacity(width as usize * 20);
        for (column, pair) in self.columns(peaks).into_iter().enumerate() {
            let (top, bottom) = self.rows(pair);
            let _ = write!(path, "M{column} {top}h1v{}h-1z", bottom - top);
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             preserveAspectRatio=\"none\"><path fill=\"#{red:02x}{green:02x}{blue:02x}\" d=\"{path}\"/></svg>\n"
        )
    }

    /// As PNG: one bit a pixel, the wave or nothing.
    ///
    /// # Errors
    /// When it cannot be encoded, which only a fault of ours brings about.
    pub fn png(&self, peaks: &Peaks) -> Result<Vec<u8>, png::EncodingError> {
        let row_bytes = self.width.div_ceil(8) as usize;
        let mut pixels = vec![0_u8; row_bytes * self.height as usize];
        for (column, pair) in self.columns(peaks).into_iter().enumerate() {
            let (top, bottom) = self.rows(pair);
            for row in top..bottom {
                pixels[row as usize * row_bytes + column / 8] |= 0x80 >> (column % 8);
            }
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::One);
        encoder.set_palette([[0, 0, 0], self.color].concat());
        encoder.set_trns(vec![0, 255]);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(bytes)
    }
}

/// The points as waveform viewers take them (`audiowaveform`'s JSON, version 2): lowest, highest, lowest, highest, …
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct WaveformJson {
    /// Of the form: 2.
    #[schema(example = 2)]
    version: u32,
    /// Both sides together: 1.
    #[schema(example = 1)]
    channels: u32,
    /// In Hz: 48000.
    #[schema(example = 48_000)]
    sample_rate: u32,
    /// Samples behind a point.
    #[schema(example = 1_920)]
    samples_per_pixel: u32,
    /// Of a number: 8, from -127 to 127.
    #[schema(example = 8)]
    bits: u32,
    /// Points; there are twice as many numbers.
    #[schema(example = 3)]
    length: usize,
    /// The lowest and the highest sample of each point in turn.
    #[schema(example = json!([-40, 42, -127, 127, 0, 0]))]
    data: Vec<i8>,
    /// What `samples_per_pixel` can be asked for.
    #[schema(example = json!([480, 1920, 7680, 30720, 122880]))]
    zooms: [u32; ZOOMS.len()],
    /// Of the whole file, in seconds.
    #[schema(example = 12.5)]
    duration_s: f64,
}

impl WaveformJson {
    /// The points of a zoom of a file so long.
    #[must_use]
    pub fn new(peaks: &Peaks, zoom: u32, duration_s: f64) -> Self {
        let pairs = zoomed(peaks, zoom);
        Self {
            version: 2,
            channels: 1,
            sample_rate: SAMPLE_RATE_HZ,
            samples_per_pixel: zoom,
            bits: 8,
            length: pairs.len(),
            data: pairs.into_iter().flat_map(|(low, high)| [low, high]).collect(),
            zooms: ZOOMS,
            duration_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peaks(pairs: &[Pair]) -> Peaks {
        let bytes: Vec<u8> = pairs.iter().flat_map(|(low, high)| [low.cast_unsigned(), high.cast_unsigned()]).collect();
        Peaks::of_bytes(&bytes).expect("pairs")
    }

    #[test]
    fn a_screen_gets_the_finest_zoom_that_fits() {
        for (pairs, zoom) in [(1, 480), (4_000, 480), (4_001, 1_920), (64_001, 30_720), (10_000_000, 122_880)] {
            assert_eq!(zoom_of_a_screen(&peaks(&vec![(0, 0); pairs])), zoom, "{pairs}");
        }
        let json = WaveformJson::new(&peaks(&[(-1, 2), (-3, 1), (0, 0), (0, 9), (-5, 5)]), 1_920, 0.05);
        assert_eq!((json.length, json.data), (2, vec![-3, 9, -5, 5]));
    }

    #[test]
    fn a_column_shows_all_that_is_behind_it() {
        let picture = Picture { width: 4, height: 254, color: [255, 0, 127] };
        let wave = peaks(&[(0, 0), (-127, 127), (-64, 0), (0, 64), (0, 0), (0, 0), (-1, 0), (0, 0)]);
        assert_eq!(picture.columns(&wave), [(-127, 127), (-64, 64), (0, 0), (-1, 0)]);
        assert_eq!(picture.rows((-127, 127)), (0, 254));
        assert_eq!(picture.rows((0, 0)), (127, 128), "silence is a line");
        let svg = picture.svg(&wave);
        assert!(svg.contains("fill=\"#ff007f\"") && svg.contains("M0 0h1v254h-1z"), "{svg}");
        let few = Picture { width: 10, height: 10, color: [0; 3] };
        assert_eq!(few.columns(&peaks(&[(-1, 1), (-2, 2)])), [[(-1, 1); 5], [(-2, 2); 5]].concat());
        assert_eq!(few.columns(&peaks(&[])).len(), 10, "nothing is a line, too");
    }

    #[test]
    fn a_picture_reads_back() {
        let picture = Picture { width: 13, height: 20, color: [1, 2, 3] };
        let bytes = picture.png(&peaks(&[(-127, 127)])).expect("encodes");
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().expect("a picture");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("pixels");
        assert_eq!((info.width, info.height), (13, 20));
        assert!(pixels.chunks_exact(4).all(|pixel| pixel == [1, 2, 3, 255]));
    }
}
