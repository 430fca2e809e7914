//! docs/protocol.md says what the code does: its examples are messages, and nothing that exists is left out.

use antiphon_core::gateway::{
    ClientMessage, Encoding, ErrorCode, FRAME_BYTES_MAX, MSGPACK_SUBPROTOCOL, ServerMessage, decode_client,
    decode_server,
};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The contents of code blocks that open with this line.
fn blocks(opening: &str) -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(opening)).collect()
}

#[test]
fn examples_from_clients_are_messages() {
    let examples = blocks("json client\n");
    assert!(examples.len() >= 5, "{}", examples.len());
    for example in examples {
        if let Err(error) = decode_client(Encoding::Json, example.as_bytes()) {
            panic!("{error}: {example}");
        }
    }
}

#[test]
fn examples_from_servers_are_messages() {
    let examples = blocks("json server\n");
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        match decode_server(Encoding::Json, example.as_bytes()) {
            Ok((ServerMessage::Recovered(recovered), ..)) => {
                for event in recovered.events.expect("the example has events") {
                    decode_server(Encoding::Json, event.to_string().as_bytes()).expect("an event is a message");
                }
            }
            Ok(_) => {}
            Err(error) => panic!("{error}: {example}"),
        }
    }
}

#[test]
fn every_message_and_code_is_described() {
    let codes = ErrorCode::ALL.map(ErrorCode::as_str);
    let names = ClientMessage::NAMES.iter().chain(ServerMessage::NAMES).chain(&codes);
    for name in names {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "docs/protocol.md does not mention {name}");
    }
    assert!(DOCUMENT.contains(MSGPACK_SUBPROTOCOL));
    assert!(DOCUMENT.contains(&format!("{} KiB", FRAME_BYTES_MAX / 1_024)));
}

/// Every link within the document leads somewhere.
#[test]
fn links_lead_to_headings() {
    let anchors: Vec<String> = DOCUMENT.lines().filter_map(|line| line.strip_prefix('#')).map(anchor).collect();
    for link in DOCUMENT.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link} leads nowhere: {anchors:?}");
    }
}

/// A heading's anchor as forges make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
