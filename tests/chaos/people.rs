//! People: each a native client in a task of its own that does what it is told and takes down what it sees.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use antiphon_core::{
    gateway::{Encoding, ErrorCode, SetVoiceState},
    ids::{ChannelId, UserId},
    wire::frame::FrameKind,
};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientError, ClientEvent, VoiceFrame},
    gateway::{GatewayConfig, GatewayError, Identity},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::Wish,
    seen::Seen,
    support::people::{how_to_join, payload},
};

/// Orders that may wait while one is carried out; more are refused, and made up for when all is healed.
const ORDERS_MAX: usize = 256;

/// Between attempts at what does not work yet.
const PAUSE: Duration = Duration::from_millis(50);

/// What somebody is told to do.
enum Order {
    /// Tries once to be as wished.
    Try(Wish),
    /// Tries until it is as wished.
    Settle(Wish, oneshot::Sender<()>),
    /// Says a frame that tells its number, in every channel that they are in.
    Say(u32),
    /// Leaves, and comes back by another node.
    Move(usize),
    /// Leaves in good order.
    Quit(oneshot::Sender<()>),
    /// Ends without a word, if there is no connection.
    Vanish(oneshot::Sender<bool>),
}

/// Somebody.
pub(crate) struct Person {
    pub(crate) user: UserId,
    orders: mpsc::Sender<Order>,
    seen: Arc<Mutex<Seen>>,
}

/// What everyone needs to know of the place.
#[derive(Clone)]
pub(crate) struct Map {
    /// Where the nodes are reached, also after they have started again.
    pub(crate) nodes: Arc<[ServerUrl]>,
    pub(crate) channels: Arc<[ChannelId]>,
}

impl Person {
    /// A new guest at a node.
    pub(crate) async fn arrive(map: &Map, node: usize, name: &str) -> Result<Self, GatewayError> {
        let (client, events) = Client::connect(config(map, node, Identity::Guest(name.to_owned()))).await?;
        let token = client.guest_tokens().expect("a guest's").0.to_owned();
        let user = client.user().id;
        let seen = Arc::new(Mutex::new(Seen::new(user)));
        let (orders, orders_rx) = mpsc::channel(ORDERS_MAX);
        let map = map.clone();
        let life = Life { map, node, token, client, events, wish: Wish::default(), seen: Arc::clone(&seen) };
        tokio::spawn(life.live(orders_rx));
        Ok(Self { user, orders, seen })
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }

    /// Has them try to be as wished.
    pub(crate) fn wants(&self, wish: Wish) {
        self.order(Order::Try(wish));
    }

    pub(crate) fn say(&self, number: u32) {
        self.order(Order::Say(number));
    }

    pub(crate) fn move_to(&self, node: usize) {
        self.order(Order::Move(node));
    }

    /// Waits until they are as wished.
    pub(crate) async fn settled(&self, wish: Wish) {
        let (reply, settled) = oneshot::channel();
        let _ = self.orders.send(Order::Settle(wish, reply)).await;
        let _ = settled.await;
    }

    /// Has them leave in good order, and waits for that.
    pub(crate) async fn quit(&self) {
        let (reply, done) = oneshot::channel();
        let _ = self.orders.send(Order::Quit(reply)).await;
        let _ = done.await;
    }

    /// Ends them without a word; false, and nothing is done, while they have a connection.
    pub(crate) async fn vanish(&self) -> bool {
        let (reply, done) = oneshot::channel();
        let _ = self.orders.send(Order::Vanish(reply)).await;
        done.await.unwrap_or(false)
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            self.seen().count("orders not taken in time");
        }
    }
}

fn config(map: &Map, node: usize, identity: Identity) -> GatewayConfig {
    let others = map.nodes.iter().enumerate().filter(|(other, _)| *other != node);
    GatewayConfig {
        server: map.nodes[node].clone(),
        others: others.map(|(_, url)| url.clone()).collect(),
        encoding: Encoding::Json,
        identity,
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task's state.
struct Life {
    map: Map,
    node: usize,
    token: String,
    client: Client,
    events: mpsc::Receiver<ClientEvent>,
    wish: Wish,
    seen: Arc<Mutex<Seen>>,
}

/// Not yet: try again.
struct NotYet;

impl Life {
    async fn live(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Quit(reply)) => return self.quit(reply).await,
                    Some(order) => if self.obey(order).await.is_break() { return },
                    None => return,
                },
                Some(event) = self.events.recv() => self.seen().take(event),
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }

    async fn obey(&mut self, order: Order) -> ControlFlow<()> {
        match order {
            Order::Try(wish) => {
                self.wish = wish;
                let _ = self.approach().await;
            }
            Order::Settle(wish, reply) => {
                self.wish = wish;
                self.settle().await;
                let _ = reply.send(());
            }
            Order::Say(number) => self.say(number).await,
            Order::Move(node) => {
                let _ = self.move_to(node).await;
            }
            Order::Quit(_) => return ControlFlow::Break(()),
            Order::Vanish(reply) => {
                self.drain();
                let vanishes = !self.seen().is_connected();
                let _ = reply.send(vanishes);
                if vanishes {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn quit(self, reply: oneshot::Sender<()>) {
        let Self { client, events, .. } = self;
        drop(events);
        client.close().await;
        let _ = reply.send(());
    }

    /// Leaves, so that nothing is left behind where the old session cannot end in good order, and comes by `node`.
    async fn move_to(&mut self, node: usize) -> Result<(), NotYet> {
        let wish = std::mem::take(&mut self.wish);
        let left = self.approach().await;
        self.wish = wish;
        if left.is_ok() && self.seen().places.is_empty() {
            self.node = node;
            self.connect().await?;
        }
        self.approach().await
    }

    async fn settle(&mut self) {
        loop {
            self.drain();
            // What must not be does not get better.
            if self.is_as_wished() || !self.seen().violations.is_empty() {
                return;
            }
            let _ = self.approach().await;
            if let Ok(Some(event)) = tokio::time::timeout(PAUSE, self.events.recv()).await {
                self.seen().take(event);
            }
        }
    }

    fn wanted(&self) -> Option<ChannelId> {
        self.wish.channel.map(|channel| self.map.channels[channel])
    }

    fn is_as_wished(&self) -> bool {
        let seen = self.seen();
        let is_there = match self.wanted() {
            None => seen.places.is_empty(),
            Some(channel) => seen.places.len() == 1 && is_muted(&seen, channel) == Some(self.wish.muted),
        };
        is_there && seen.is_connected() && seen.in_doubt.is_none()
    }

    /// Makes the requests that lead to what is wished, as far as they are granted.
    async fn approach(&mut self) -> Result<(), NotYet> {
        self.drain();
        if self.seen().closed.is_some() {
            self.connect().await?;
        }
        if !self.seen().is_connected() {
            return Err(NotYet);
        }
        let wanted = self.wanted();
        let mut here: Vec<ChannelId> = self.seen().places.keys().copied().collect();
        here.extend(self.seen().in_doubt);
        for channel in here.into_iter().filter(|channel| Some(*channel) != wanted) {
            self.leave(channel).await?;
        }
        let Some(channel) = wanted else { return Ok(()) };
        if !self.seen().places.contains_key(&channel) {
            self.join(channel).await?;
        }
        let muted = is_muted(&self.seen(), channel);
        if muted.is_some_and(|muted| muted != self.wish.muted) {
            let change = SetVoiceState { channel_id: channel, muted: Some(self.wish.muted), deafened: None };
            let answer = self.client.request(change).await;
            self.drain();
            answer.map_err(|error| self.refused("mute", &error))?;
        }
        Ok(())
    }

    async fn join(&mut self, channel: ChannelId) -> Result<(), NotYet> {
        self.seen().in_doubt = Some(channel);
        let answer = self.client.join(how_to_join(channel)).await;
        self.drain();
        match answer {
            Ok(joined) => {
                self.seen().joined(joined);
                Ok(())
            }
            Err(error) => {
                if is_certain(&error) {
                    self.seen().in_doubt = None;
                }
                Err(self.refused("join", &error))
            }
        }
    }

    async fn leave(&mut self, channel: ChannelId) -> Result<(), NotYet> {
        let was_in_doubt = self.seen().in_doubt.replace(channel).is_some();
        let answer = self.client.leave(channel).await;
        self.drain();
        match answer {
            Ok(()) => self.seen().left(channel),
            // They had left, or never joined, without hearing of it.
            Err(ClientError::Refused(error)) if error.error_code == ErrorCode::PermissionDenied && was_in_doubt => {
                self.seen().left(channel);
            }
            Err(error) => {
                let is_in = self.seen().places.contains_key(&channel);
                if is_certain(&error) && is_in {
                    self.seen().in_doubt = None;
                }
                return Err(self.refused("leave", &error));
            }
        }
        Ok(())
    }

    /// Takes down why something was not done; what is no reason that people were told to expect is a violation.
    fn refused(&self, what: &str, error: &ClientError) -> NotYet {
        let mut seen = self.seen();
        match error {
            ClientError::Closed | ClientError::Disconnected | ClientError::TimedOut => {}
            ClientError::Refused(refused)
                if matches!(refused.error_code, ErrorCode::TemporarilyUnavailable | ErrorCode::RateLimited) => {}
            _ => seen.violation(format!("{what} failed: {error}")),
        }
        seen.count(format!("{what} not done: {error}"));
        NotYet
    }

    /// A new session for the same account, at the next node that takes it.
    async fn connect(&mut self) -> Result<(), NotYet> {
        let node = self.node;
        self.node = (node + 1) % self.map.nodes.len();
        match Client::connect(config(&self.map, node, Identity::Token(self.token.clone()))).await {
            Ok((client, events)) => {
                let before = std::mem::replace(&mut self.client, client);
                self.events = events;
                before.close().await;
                self.seen().begin_anew();
                self.node = node;
                Ok(())
            }
            Err(error) => {
                let mut seen = self.seen();
                if !matches!(error, GatewayError::Connection(_)) && !error.is_passing() {
                    seen.violation(format!("connecting failed: {error}"));
                }
                seen.count(format!("not connected: {error}"));
                Err(NotYet)
            }
        }
    }

    async fn say(&self, number: u32) {
        let channels: Vec<ChannelId> = self.seen().places.keys().copied().collect();
        for channel in channels {
            let frame = VoiceFrame {
                kind: FrameKind::Audio,
                flags: 0,
                level: 30,
                timestamp: number.wrapping_mul(960),
                bytes: payload(number),
            };
            // One that cannot be sent is one that is not heard.
            let _ = self.client.send(channel, frame).await;
        }
    }

    /// Takes everything that has come.
    fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen().take(event);
        }
    }
}

fn is_muted(seen: &Seen, channel: ChannelId) -> Option<bool> {
    seen.places.get(&channel)?.view.seats().get(&seen.me).map(|seat| seat.muted)
}

/// Whether nothing can have happened.
fn is_certain(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(_))
}
