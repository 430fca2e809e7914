//! Waveforms as numbers and pictures.

use serde_json::json;

use crate::{Streaming, support::sounds::output};

/// Two seconds of silence, two of a tone at half of full scale, one of silence.
fn write_steps(streaming: &Streaming) {
    let path = streaming.audio_dir().join("steps.flac");
    let source = "aevalsrc='if(between(t,2,4),0.5*sin(2*PI*440*t),0)':d=5:s=44100";
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", source, "-y", path.to_str().expect("text")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waveform_shows_where_the_sound_is_at_every_zoom() {
    let streaming = Streaming::start(|_| {}).await;
    write_steps(&streaming);
    let get = async |query: &str| streaming.anna.get(&format!("/api/streams/steps.flac/waveform{query}")).await;
    let waveform = get("").await.expect(200)["data"].clone();
    assert_eq!(waveform["samples_per_pixel"], 480, "all of it fits a screen");
    assert_eq!((&waveform["version"], &waveform["bits"], &waveform["channels"]), (&json!(2), &json!(8), &json!(1)));
    assert!((waveform["duration_s"].as_f64().expect("seconds") - 5.0).abs() < 0.001);
    for (zoom, per_second) in [(480, 100.0), (1_920, 25.0), (7_680, 6.25)] {
        let waveform = get(&format!("?samples_per_pixel={zoom}")).await.expect(200)["data"].clone();
        let data: Vec<i64> = waveform["data"].as_array().expect("numbers").iter().filter_map(|n| n.as_i64()).collect();
        let points = (5.0_f64 * per_second).ceil() as usize;
        assert_eq!((waveform["length"].as_u64(), data.len()), (Some(points as u64), 2 * points), "{zoom}");
        let at = |second: f64| {
            let point = (second * per_second) as usize * 2;
            (data[point], data[point + 1])
        };
        for quiet in [0.5, 1.5, 4.7] {
            let (low, high) = at(quiet);
            assert!(low >= -2 && high <= 2, "{zoom} at {quiet}: {low} {high}");
        }
        let (low, high) = at(3.0);
        assert!((-66..=-60).contains(&low) && (60..=66).contains(&high), "{zoom}: {low} {high}");
    }
    get("?samples_per_pixel=500").await.expect_error(400, "INVALID_INPUT");
    streaming.nobody.get("/api/streams/steps.flac/waveform").await.expect_error(401, "UNAUTHENTICATED");
    streaming.put("broken.mp3", b"no sound");
    streaming.anna.get("/api/streams/broken.mp3/waveform").await.expect_error(422, "INVALID_INPUT");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_for_whoever_may_play() {
    let streaming = Streaming::start(|_| {}).await;
    write_steps(&streaming);
    let link = streaming.link("steps.flac").await;
    let (_, signature) = link.split_once('?').expect("a signed link");
    let base = streaming.server.url();
    let png = format!("{base}/api/streams/steps.flac/waveform.png?{signature}&width=500&height=100&color=ff0000");
    let probed =
        output("ffprobe", &["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0", &png]);
    assert_eq!(String::from_utf8_lossy(&probed).trim(), "png,500,100");
    // Column by column: filled where the tone is, a line elsewhere.
    let pixels = output("ffmpeg", &["-v", "error", "-i", &png, "-f", "rawvideo", "-pix_fmt", "rgba", "-"]);
    let filled = |column: usize| (0..100).filter(|row| pixels[(row * 500 + column) * 4 + 3] > 0).count();
    assert_eq!(pixels.len(), 500 * 100 * 4);
    assert!(filled(50) <= 3 && filled(480) <= 3, "silence: {} {}", filled(50), filled(480));
    assert!((45..=55).contains(&filled(300)), "half of full scale: {}", filled(300));
    let svg = streaming.nobody.get(&format!("/api/streams/steps.flac/waveform.svg?{signature}&width=50")).await;
    assert_eq!((svg.status.as_u16(), svg.header("content-type")), (200, "image/svg+xml"));
    assert!(svg.text.starts_with("<svg ") && svg.text.contains("viewBox=\"0 0 50 200\""), "{}", svg.text);
    let other = streaming.nobody.get("/api/streams/steps.flac/waveform.svg?expires=9999999999&sig=AAAA").await;
    other.expect_error(403, "BAD_SIGNATURE");
    for wrong in ["width=0", "width=4097", "height=1025", "color=red"] {
        let answer = streaming.anna.get(&format!("/api/streams/steps.flac/waveform.png?{wrong}")).await;
        answer.expect_error(400, "INVALID_INPUT");
    }
    streaming.stop().await;
}
