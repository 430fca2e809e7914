//! Ranges are byte for byte those of the file.

use std::ops::Range;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use reqwest::Method;

use crate::{Streaming, client::Client, pattern};

/// Longer than several blocks of the cache, and no multiple of one.
const LENGTH: usize = 400_123;
const RANGE_MAX: usize = 150_000;

/// A range as it is asked for.
#[derive(Clone, Debug)]
enum Asked {
    FromTo(usize, usize),
    From(usize),
    Last(usize),
}

impl Asked {
    fn text(&self) -> String {
        match self {
            Self::FromTo(from, to) => format!("{from}-{to}"),
            Self::From(from) => format!("{from}-"),
            Self::Last(count) => format!("-{count}"),
        }
    }

    /// Which bytes the file has of it, by the RFC's words and the limit.
    fn bytes(&self) -> Range<usize> {
        match *self {
            Self::FromTo(from, to) if to < LENGTH - 1 => from..(to + 1).min(from + RANGE_MAX),
            Self::FromTo(from, _) | Self::From(from) => from..LENGTH,
            Self::Last(count) => LENGTH.saturating_sub(count)..LENGTH,
        }
    }

    fn is_there(&self) -> bool {
        let bytes = self.bytes();
        bytes.start < bytes.end
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let place = prop_oneof![0..LENGTH + 10, Just(0), Just(LENGTH - 1), Just(131_071), Just(131_072), Just(262_144)];
    prop_oneof![
        (place.clone(), 0..200_000_usize).prop_map(|(from, more)| Asked::FromTo(from, from + more)),
        (place.clone(), Just(0_usize)).prop_map(|(from, _)| Asked::From(from)),
        (0..LENGTH + 10).prop_map(Asked::Last),
    ]
}

async fn get(client: &Client, link: &str, range: &str) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let response = client.request(Method::GET, link).header("range", range).send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.bytes().await.expect("the body is complete").to_vec())
}

/// The parts of a multipart body: `Content-Range` and content.
fn parts_of(content_type: &str, body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("several parts");
    let find = |body: &[u8], text: &str| body.windows(text.len()).position(|window| window == text.as_bytes());
    let (delimiter, mut rest, mut parts) = (format!("\r\n--{boundary}"), body, Vec::new());
    assert_eq!(find(rest, &delimiter), Some(0));
    loop {
        rest = &rest[delimiter.len()..];
        if rest == b"--\r\n" {
            return parts;
        }
        let head_end = find(rest, "\r\n\r\n").expect("a head") + 4;
        let head = std::str::from_utf8(&rest[..head_end]).expect("text");
        assert!(head.contains("Content-Type: audio/mpeg\r\n"), "{head}");
        let range = head.split("Content-Range: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a range");
        let end = head_end + find(&rest[head_end..], &delimiter).expect("an end");
        parts.push((range.to_owned(), rest[head_end..end].to_vec()));
        rest = &rest[end..];
    }
}

#[tokio::test]
async fn any_ranges_are_those_of_the_file() {
    let streaming = Streaming::start(|settings| {
        settings.streaming.max_range_size_bytes = RANGE_MAX as u64;
        // Few blocks, so that some are read again.
        settings.streaming.cache_max_size_mb = 1;
    })
    .await;
    let content = pattern(LENGTH);
    streaming.put("a.mp3", &content);
    let link = streaming.link("a.mp3").await;
    let mut runner = TestRunner::new(Config::default());
    let lists = prop::collection::vec(asked(), 1..5);
    let (mut single, mut several, mut none, mut whole) = (0, 0, 0, 0);
    for _ in 0..250 {
        let list = lists.new_tree(&mut runner).expect("a case").current();
        let header = format!("bytes={}", list.iter().map(Asked::text).collect::<Vec<_>>().join(", "));
        let wanted: Vec<Range<usize>> = list.iter().filter(|one| one.is_there()).map(Asked::bytes).collect();
        let (status, headers, body) = get(&streaming.nobody, &link, &header).await;
        let header_of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_range = |range: &Range<usize>| format!("bytes {}-{}/{LENGTH}", range.start, range.end - 1);
        assert_eq!(header_of("content-length"), body.len().to_string(), "{header}");
        match wanted.as_slice() {
            [] => {
                assert_eq!(
                    (status, header_of("content-range")),
                    (416, format!("bytes */{LENGTH}").as_str()),
                    "{header}"
                );
                none += 1;
            }
            [one] => {
                assert_eq!((status, header_of("content-range")), (206, content_range(one).as_str()), "{header}");
                assert!(body == content[one.clone()], "{header}");
                single += 1;
            }
            many if many.iter().map(Range::len).sum::<usize>() > LENGTH => {
                assert!(status == 200 && body == content, "{header}");
                whole += 1;
            }
            many => {
                assert_eq!(status, 206, "{header}");
                let parts = parts_of(header_of("content-type"), &body);
                let expected: Vec<_> =
                    many.iter().map(|range| (content_range(range), content[range.clone()].to_vec())).collect();
                assert!(parts == expected, "{header}");
                several += 1;
            }
        }
    }
    assert!(single > 10 && several > 10 && whole > 5, "{single} single, {several} several, {none} none, {whole} whole");
    streaming.stop().await;
}
