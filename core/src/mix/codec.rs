//! What mixing needs of an audio codec. The core has none: whoever mixes brings one, and tests bring one without loss.

/// Samples of one tick of a mix: 20 ms at 48 kHz, one channel.
pub const FRAME_SAMPLES: usize = 960;
/// Samples of the longest packet: 120 ms (RFC 6716, requirement R5).
pub const PACKET_SAMPLES_MAX: usize = 5_760;
/// Bytes of the longest packet of a mix: 20 ms at 160 kbit/s.
pub const MIX_BYTES_MAX: usize = 400;

/// Turns one speaker's packets into samples at 48 kHz, one channel.
pub trait Decoder {
    /// Decodes a packet to the front of `out`, which has room for [`PACKET_SAMPLES_MAX`]: how many samples it has, or `None`
    /// when the bytes are no packet.
    fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize>;
    /// Fills `out` with what may have been said in a packet that is lost; with silence if it knows nothing better.
    fn conceal(&mut self, out: &mut [i16]);
    /// Likewise where `next`, the packet behind the lost one, is there: it may hold a copy of it.
    fn recover(&mut self, next: &[u8], out: &mut [i16]);
}

/// Turns samples into packets.
pub trait Encoder {
    /// Encodes 20 ms to the front of `out`: the packet's length, or `None` when it cannot.
    fn encode(&mut self, samples: &[i16; FRAME_SAMPLES], out: &mut [u8; MIX_BYTES_MAX]) -> Option<usize>;
    /// How much work a packet may be from now on: Opus's complexity, 0 to 10.
    fn set_complexity(&mut self, complexity: u8);
}

/// Where decoders and encoders come from, and go back to when nobody needs them.
pub trait Codec {
    /// One speaker's.
    type Decoder: Decoder;
    /// One mix's.
    type Encoder: Encoder;

    /// A decoder that has heard nothing; `None` when there can be no more.
    fn decoder(&mut self) -> Option<Self::Decoder>;
    /// An encoder that has encoded nothing; `None` when there can be no more.
    fn encoder(&mut self) -> Option<Self::Encoder>;
    /// Takes a decoder back.
    fn keep_decoder(&mut self, decoder: Self::Decoder);
    /// Takes an encoder back.
    fn keep_encoder(&mut self, encoder: Self::Encoder);
}
