//! The port for browsers whose UDP is blocked: who keeps a place there.

use std::{io::ErrorKind, net::SocketAddr};

use antiphon::media::{
    Media,
    webrtc::{IceTcp, PeerCommand, PeerEvent, PeerKey, Ways, Wish},
};
use antiphon_core::{
    engine::{Command, Hears, MemberFlags},
    gateway::{PeerRole, PublishKind, VideoQuality},
    ids::{ChannelId, StreamId},
};
use futures_util::future::select_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    time::timeout,
};

use crate::{PATIENCE, open_channel, start};

/// Connections that the port serves, and of one address.
const SERVED: u32 = 8;
const OF_ONE: u32 = 3;

/// A check of ICE that names a fragment, in front of it its length; nothing in it is authentic.
fn check(fragment: &str) -> Vec<u8> {
    let name = format!("{fragment}:theirs");
    let mut value = name.clone().into_bytes();
    value.resize(value.len().next_multiple_of(4), 0);
    let attributes = u16::try_from(4 + value.len()).expect("short");
    let mut framed = (20 + attributes).to_be_bytes().to_vec();
    framed.extend([0x00, 0x01]);
    framed.extend(attributes.to_be_bytes());
    framed.extend([0x21, 0x12, 0xa4, 0x42]);
    framed.extend([7; 12]);
    framed.extend([0x00, 0x06]);
    framed.extend(u16::try_from(name.len()).expect("short").to_be_bytes());
    framed.extend(value);
    framed
}

async fn connected(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(from.parse().expect("an address")).expect("a port");
    socket.connect(to).await.expect("the kernel takes it")
}

async fn that_says(from: &str, to: SocketAddr, fragment: &str) -> TcpStream {
    let mut stream = connected(from, to).await;
    // One that is refused may be closed already.
    _ = stream.write_all(&check(fragment)).await;
    stream
}

/// Waits until the server closes a connection. It may be reset before that.
async fn closed(mut stream: TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("closed in time");
    assert_eq!(read.unwrap_or(0), 0, "nothing is said to strangers");
}

/// The fragment of a subscriber that waits for its client.
async fn fragment_of_one(media: &Media) -> String {
    let mut events = media.take_peer_events().expect("there is WebRTC");
    let (home, channel): (_, ChannelId) = open_channel(media).await;
    let stream = StreamId(1);
    let flags = MemberFlags::default();
    media
        .send(home, Command::AddMember { channel, stream, udp: None, hears: Hears::Peer, flags, last_sequence: None })
        .await;
    let key = PeerKey { channel, stream, role: PeerRole::Subscriber };
    let ways = Ways { udp: vec![media.local_addr()], tcp: Vec::new() };
    let wishes = vec![Wish { stream: StreamId(2), kind: PublishKind::Audio, quality: VideoQuality::Off }];
    let (reply, subscribed) = oneshot::channel();
    media.send_to_peers(home, PeerCommand::Subscribe { key, ways, wishes, restart: false, reply }).await;
    subscribed.await.expect("the workers live").expect("there is a place");
    loop {
        let event = timeout(PATIENCE, events.recv()).await.expect("in time").expect("the workers live");
        if let PeerEvent::Offer { sdp, .. } = event {
            let fragment = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("it has one");
            return fragment.to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_no_place_and_nobody_more_than_a_share() {
    let (media, _events) = start(2);
    let tcp = IceTcp::bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let port = SocketAddr::from(([127, 0, 0, 1], tcp.port().expect("bound")));
    let serving = tokio::spawn(tcp.serve(media.clone(), SERVED, OF_ONE));
    let fragment = fragment_of_one(&media).await;
    // Names of both workers and of one that there is not, which no peer has.
    for number in 0..4 * SERVED {
        let unknown = ["AA000000000000", "AB000000000000", "PP000000000000"][number as usize % 3];
        closed(that_says("127.0.0.4:0", port, unknown).await).await;
    }
    // Those who say nothing wait at another door, where an address has its share, too.
    let silent = [connected("127.0.0.3:0", port).await, connected("127.0.0.3:0", port).await];
    let mut own = Vec::new();
    for _ in 0..=OF_ONE {
        own.push(that_says("127.0.0.1:0", port, &fragment).await);
    }
    // Whichever of them came last to the door.
    let waits = own.iter_mut().map(|stream| Box::pin(async move { stream.read(&mut [0; 16]).await.unwrap_or(0) }));
    let (read, refused, _) = timeout(PATIENCE, select_all(waits)).await.expect("one is too many");
    assert_eq!(read, 0);
    own.remove(refused);
    own.push(that_says("127.0.0.2:0", port, &fragment).await);
    // What somebody else is told shows that the port goes on.
    closed(that_says("127.0.0.4:0", port, "AA000000000000").await).await;
    for stream in &own {
        assert!(stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
    drop((own, silent));
    serving.abort();
    media.stop().await;
}
