//! What a report says of what happened beside talking.

use std::collections::BTreeMap;

use antiphon_loadtest::load::{ChatOutcome, Outcome, StreamsOutcome};

/// What else there was where somebody is in voice: opinion scores, voice in WebSockets, a storm.
pub(crate) fn voice(node: &Outcome) -> String {
    let mut text = String::new();
    if let Some(quality) = node.quality {
        let (mean, p5, min) = (quality.mos_mean, quality.mos_p5, quality.mos_min);
        text +=
            &format!("opinion score (E-model): mean {mean:.2}, 95 of 100 listeners at least {p5:.2}, worst {min:.2}\n");
    }
    if node.tunnel_latency.count > 0 {
        let (p50, p99) = (node.tunnel_latency.p50_ms, node.tunnel_latency.p99_ms);
        text += &format!("in WebSockets: p50 {p50:.2} ms, p99 {p99:.2} ms\n");
    }
    if let Some(storm) = &node.storm {
        let why = storm.first_failure.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let (count, settled_s, failures) = (storm.times.count, storm.settled_s, storm.failures);
        let (p50, p99) = (storm.times.p50_ms, storm.times.p99_ms);
        text += &format!(
            "a storm of {count} joins settled in {settled_s:.2} s: p50 {p50:.1} ms, p99 {p99:.1} ms; {failures} failed{why}\n"
        );
    }
    text
}

/// What else there was, whoever was there: scrapes, chat, audio files.
pub(crate) fn text(node: &Outcome) -> String {
    let mut text = String::new();
    if let Some(scrapes) = &node.scrapes {
        let why = scrapes.first_failure.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let (count, p50, p99) = (scrapes.times.count, scrapes.times.p50_ms, scrapes.times.p99_ms);
        let (bytes, failures) = (scrapes.bytes_max, scrapes.failures);
        text += &format!(
            "{count} scrapes of up to {bytes} bytes: p50 {p50:.1} ms, p99 {p99:.1} ms; {failures} failed{why}\n"
        );
    }
    text + &node.chat.as_ref().map_or_else(String::new, chat) + &node.streams.as_ref().map_or_else(String::new, streams)
}

fn chat(chat: &ChatOutcome) -> String {
    let ChatOutcome { members, sent, acknowledged, unanswered, delivered, expected, delivered_per_s, .. } = chat;
    let refused = counts(&chat.refused);
    let cost =
        chat.cpu_us_per_delivery.map_or_else(String::new, |cost| format!(", {cost:.2} µs of the nodes' CPU each"));
    let mut text = format!(
        "chat of {members}: {sent} messages written, {acknowledged} acknowledged, {refused} refused, {unanswered} never \
         answered\n{delivered} of {expected} deliveries, {delivered_per_s:.0} a second{cost}: {} lost, {} doubled, {} out of \
         order, {} altered\n",
        chat.lost, chat.doubled, chat.out_of_order, chat.corrupt
    );
    for (what, times) in [("delivered", chat.latency), ("acknowledged", chat.acknowledgement)] {
        let (p50, p95, p99, p999) = (times.p50_ms, times.p95_ms, times.p99_ms, times.p999_ms);
        text += &format!("{what} after p50 {p50:.2} ms, p95 {p95:.2}, p99 {p99:.2}, p99.9 {p999:.2}\n");
    }
    if chat.returned > 0 {
        let (p50, p99, max) = (chat.away.p50_ms, chat.away.p99_ms, chat.away.max_ms);
        text += &format!(
            "{} times a session went on after p50 {p50:.0} ms, p99 {p99:.0}, max {max:.0}, {} of them by the room's history: {} \
             messages told then, {} written then\n",
            chat.returned, chat.from_history, chat.caught_up, chat.written_again
        );
    }
    if let Some(first) = &chat.first_end {
        text += &format!("{} members' sessions ended, the first like this: {first}\n", chat.sessions_ended);
    }
    let (late, swept, piled_up) = (chat.lateness.p99_ms, chat.sweep_lateness.p99_ms, chat.piled_up_bytes_max);
    text + &format!(
        "load client: messages written p99 {late:.2} ms after their time, sockets swept p99 {swept:.2} ms after theirs, at most \
         {piled_up} bytes at once\n"
    )
}

fn streams(streams: &StreamsOutcome) -> String {
    let StreamsOutcome { listeners, range_bytes, requests, requests_per_s, gigabytes_per_s, .. } = streams;
    let failures = counts(&streams.failures);
    let cost =
        streams.cpu_s_per_gib.map_or_else(String::new, |cost| format!(", {cost:.2} s of the nodes' CPU for each GiB"));
    let (first, whole, late) = (streams.first_byte, streams.whole, streams.lateness);
    let mut text = format!(
        "audio files to {listeners} listeners in ranges of {range_bytes} bytes: {requests} requests, {requests_per_s:.0} and \
         {gigabytes_per_s:.3} GB a second{cost}; {failures} failed, {} altered\n\
         to the first byte p50 {:.2} ms, p99 {:.2}; to the last p50 {:.2}, p99 {:.2}\n",
        streams.corrupt, first.p50_ms, first.p99_ms, whole.p50_ms, whole.p99_ms
    );
    if late.count > 0 {
        let (stalls, p99) = (streams.stalls, late.p99_ms);
        text +=
            &format!("{stalls} ranges came too late to be played; load client: asked p99 {p99:.2} ms after its time\n");
    }
    text
}

/// How many, and of which kind.
fn counts(by_code: &BTreeMap<String, u64>) -> String {
    let all: u64 = by_code.values().sum();
    let kinds: Vec<String> = by_code.iter().map(|(code, count)| format!("{code} {count}")).collect();
    if kinds.is_empty() { all.to_string() } else { format!("{all} ({})", kinds.join(", ")) }
}
