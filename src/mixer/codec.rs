//! Opus for the mixer: libopus' decoders and encoders, a number of which wait to be used again.

use antiphon_core::mix::{Codec, Decoder, Encoder, FRAME_SAMPLES, MIX_BYTES_MAX};
use opus::{Application, Bitrate, Channels};

/// The rate of everything that is mixed.
const SAMPLE_RATE_HZ: u32 = 48_000;
/// Decoders and encoders kept for later, each: some 30 KB apiece.
const KEPT_MAX: usize = 64;

/// Opus as it is set.
pub struct OpusCodec {
    bitrate: u32,
    decoders: Vec<OpusDecoder>,
    encoders: Vec<OpusEncoder>,
}

impl OpusCodec {
    /// `bitrate` is that of a mix, in bits per second.
    #[must_use]
    pub fn new(bitrate: u32) -> Self {
        Self { bitrate, decoders: Vec::with_capacity(KEPT_MAX), encoders: Vec::with_capacity(KEPT_MAX) }
    }

    fn new_encoder(&self) -> Result<OpusEncoder, opus::Error> {
        // CELT alone: a third of the time of the codec for speech, a shorter look-ahead, and several voices at once are none
        // of the speech that the other is a model of. It also remembers less, so that a change of encoders is heard less.
        let mut encoder = opus::Encoder::new(SAMPLE_RATE_HZ, Channels::Mono, Application::LowDelay)?;
        encoder.set_bitrate(Bitrate::Bits(i32::try_from(self.bitrate).unwrap_or(i32::MAX)))?;
        Ok(OpusEncoder { encoder, complexity: None })
    }
}

impl Codec for OpusCodec {
    type Decoder = OpusDecoder;
    type Encoder = OpusEncoder;

    fn decoder(&mut self) -> Option<OpusDecoder> {
        // Stereo is decoded to one channel by libopus itself.
        let new = || opus::Decoder::new(SAMPLE_RATE_HZ, Channels::Mono).ok().map(OpusDecoder);
        self.decoders.pop().or_else(new)
    }

    fn encoder(&mut self) -> Option<OpusEncoder> {
        self.encoders.pop().or_else(|| self.new_encoder().ok())
    }

    fn keep_decoder(&mut self, mut decoder: OpusDecoder) {
        if self.decoders.len() < KEPT_MAX && decoder.0.reset_state().is_ok() {
            self.decoders.push(decoder);
        }
    }

    fn keep_encoder(&mut self, mut encoder: OpusEncoder) {
        if self.encoders.len() < KEPT_MAX && encoder.encoder.reset_state().is_ok() {
            self.encoders.push(encoder);
        }
    }
}

/// One speaker's.
pub struct OpusDecoder(opus::Decoder);

impl Decoder for OpusDecoder {
    fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize> {
        self.0.decode(packet, out, false).ok()
    }

    fn conceal(&mut self, out: &mut [i16]) {
        // An empty packet is a lost one. What libopus does not fill, as when it was never given any, is silence.
        let made_up = self.0.decode(&[], out, false).unwrap_or(0);
        out.iter_mut().skip(made_up).for_each(|sample| *sample = 0);
    }

    fn recover(&mut self, next: &[u8], out: &mut [i16]) {
        // Where the packet holds no copy libopus makes something up, as above.
        let recovered = self.0.decode(next, out, true).unwrap_or(0);
        out.iter_mut().skip(recovered).for_each(|sample| *sample = 0);
    }
}

/// One mix's.
pub struct OpusEncoder {
    encoder: opus::Encoder,
    /// As it was last set.
    complexity: Option<u8>,
}

impl Encoder for OpusEncoder {
    fn encode(&mut self, samples: &[i16; FRAME_SAMPLES], out: &mut [u8; MIX_BYTES_MAX]) -> Option<usize> {
        self.encoder.encode(samples, out).ok()
    }

    fn set_complexity(&mut self, complexity: u8) {
        if self.complexity != Some(complexity) && self.encoder.set_complexity(complexity.into()).is_ok() {
            self.complexity = Some(complexity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frame: usize) -> [i16; FRAME_SAMPLES] {
        std::array::from_fn(|n| {
            let t = (frame * FRAME_SAMPLES + n) as f32 / 48_000.0;
            ((t * 440.0 * std::f32::consts::TAU).sin() * 8_000.0) as i16
        })
    }

    fn energy(samples: &[i16]) -> f64 {
        samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn what_is_encoded_is_decoded_and_what_is_lost_is_made_up() {
        let mut codec = OpusCodec::new(32_000);
        let (mut encoder, mut decoder) = (codec.encoder().expect("an encoder"), codec.decoder().expect("a decoder"));
        encoder.set_complexity(5);
        let (mut packet, mut heard) = ([0; MIX_BYTES_MAX], [0; 5_760]);
        let mut last = 0;
        for frame in 0..20 {
            let length = encoder.encode(&tone(frame), &mut packet).expect("encodes");
            assert!((20..MIX_BYTES_MAX).contains(&length), "{length}");
            last = decoder.decode(&packet[..length], &mut heard).expect("decodes");
        }
        assert_eq!(last, FRAME_SAMPLES);
        let loud = energy(&heard[..last]);
        assert!((energy(&tone(0)) / loud - 1.0).abs() < 0.2, "{loud}");
        decoder.conceal(&mut heard[..FRAME_SAMPLES]);
        assert!(energy(&heard[..FRAME_SAMPLES]) > loud / 20.0, "a lost packet is not silence");
        assert_eq!(decoder.decode(&[0xff, 0xff], &mut heard), None);
    }

    #[test]
    fn a_lost_packet_is_taken_from_the_one_behind_it() {
        let mut encoder = opus::Encoder::new(SAMPLE_RATE_HZ, Channels::Mono, Application::Voip).expect("an encoder");
        encoder.set_bitrate(Bitrate::Bits(24_000)).expect("a bitrate");
        encoder.set_inband_fec(true).expect("redundancy");
        encoder.set_packet_loss_perc(20).expect("a loss");
        encoder.set_signal(opus::Signal::Voice).expect("speech");
        // A tone that begins in the packet that is lost: what came before it says nothing of it.
        let silence = [0; FRAME_SAMPLES];
        let packets: Vec<Vec<u8>> = (0..20)
            .map(|frame| encoder.encode_vec(&if frame < 10 { silence } else { tone(frame) }, 400).expect("encodes"))
            .collect();
        let lost = |recovers: bool| {
            let mut decoder = OpusCodec::new(24_000).decoder().expect("a decoder");
            let mut heard = [0; 5_760];
            for packet in &packets[..10] {
                decoder.decode(packet, &mut heard).expect("decodes");
            }
            let out = &mut heard[..FRAME_SAMPLES];
            if recovers {
                decoder.recover(&packets[11], out);
            } else {
                decoder.conceal(out);
            }
            energy(out)
        };
        let (recovered, made_up) = (lost(true), lost(false));
        assert!(recovered > 1e6, "{recovered} with the copy, {made_up} without");
    }

    #[test]
    fn one_that_is_used_again_remembers_nothing() {
        let mut codec = OpusCodec::new(32_000);
        let mut packet = [0; MIX_BYTES_MAX];
        let mut first = codec.encoder().expect("an encoder");
        first.set_complexity(5);
        let fresh = first.encode(&tone(0), &mut packet).map(|length| packet[..length].to_vec());
        for frame in 1..10 {
            first.encode(&tone(frame * 7), &mut packet).expect("encodes");
        }
        codec.keep_encoder(first);
        let mut again = codec.encoder().expect("an encoder");
        assert!(codec.encoders.is_empty());
        let again = again.encode(&tone(0), &mut packet).map(|length| packet[..length].to_vec());
        assert_eq!(again, fresh);
    }

    #[test]
    fn a_bounded_number_is_kept() {
        let mut codec = OpusCodec::new(32_000);
        let decoders: Vec<_> = (0..KEPT_MAX + 3).map(|_| codec.decoder().expect("a decoder")).collect();
        decoders.into_iter().for_each(|decoder| codec.keep_decoder(decoder));
        assert_eq!(codec.decoders.len(), KEPT_MAX);
    }
}
