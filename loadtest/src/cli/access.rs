//! Who plays and records, and where.

use std::path::PathBuf;

use antiphon_core::{
    gateway::{ChannelJoined, ChannelView, Cipher, Encoding, JoinChannel, MediaMode, MediaTransport},
    ids::StreamId,
};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientEvent},
    gateway::{GatewayConfig, Identity},
    rest::{Account, NewChannel, Rest, RestError},
    tls,
};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use super::output;

/// Which certificates servers are believed by.
#[derive(Clone, Debug, Args)]
pub(crate) struct TrustArguments {
    /// Believe servers whose certificates an authority in this PEM file has signed, and no others
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Believe any server, whoever it is
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

impl TrustArguments {
    /// Puts it into force, once for the process.
    pub(crate) fn apply(&self) -> Result<()> {
        match &self.ca {
            Some(file) => Ok(tls::trust_authorities(file)?),
            None if self.insecure => Ok(tls::trust_anyone()?),
            None => Ok(()),
        }
    }
}

/// Where the server is, and who connects.
#[derive(Clone, Debug, Args)]
pub(crate) struct AccessArguments {
    /// The server's HTTP address
    #[arg(long, env = "ANTIPHON_URL", default_value = "http://127.0.0.1:3000", value_name = "URL")]
    pub(crate) server: ServerUrl,
    /// Where else the session is resumed when the server is gone: other nodes, or a balancer before them
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    fallback: Vec<ServerUrl>,
    #[command(flatten)]
    trust: TrustArguments,
    /// An account to log in with; without one a guest is made
    #[arg(long, requires = "password", value_name = "NAME")]
    user: Option<String>,
    /// The account's password
    #[arg(long, env = "ANTIPHON_PASSWORD", hide_env_values = true, requires = "user", value_name = "PASSWORD")]
    password: Option<String>,
    /// The guest's name; a random one when absent
    #[arg(long, conflicts_with = "user", value_name = "NAME")]
    name: Option<String>,
    /// How the gateway's messages are encoded
    #[arg(long, value_enum, default_value_t)]
    encoding: EncodingName,
}

/// The channel, and how voice travels there.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChannelArguments {
    /// The channel's name; it is made when there is none
    #[arg(long, value_name = "NAME", required_unless_present = "invite")]
    channel: Option<String>,
    /// An invite instead, which makes one a member of its channel: for a private one
    #[arg(long, value_name = "CODE")]
    invite: Option<String>,
    /// How voice travels
    #[arg(long, value_enum, default_value_t)]
    media: MediaName,
    /// Whether each speaker's stream is heard, or one mix of all others
    #[arg(long, value_enum, default_value_t)]
    mode: ModeName,
    /// What seals datagrams
    #[arg(long, value_enum)]
    cipher: Option<CipherName>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum EncodingName {
    #[default]
    Json,
    Msgpack,
}

impl From<EncodingName> for Encoding {
    fn from(name: EncodingName) -> Self {
        match name {
            EncodingName::Json => Self::Json,
            EncodingName::Msgpack => Self::MessagePack,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum MediaName {
    #[default]
    Udp,
    Websocket,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ModeName {
    #[default]
    Forward,
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CipherName {
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<CipherName> for Cipher {
    fn from(name: CipherName) -> Self {
        match name {
            CipherName::Aes128Gcm => Self::Aes128Gcm,
            CipherName::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

/// A client in a channel.
pub(crate) struct Joined {
    pub(crate) client: Client,
    pub(crate) events: mpsc::Receiver<ClientEvent>,
    pub(crate) joined: ChannelJoined,
}

impl Joined {
    /// Who is behind each stream of the channel.
    pub(crate) fn names(&self) -> impl Iterator<Item = (StreamId, &str)> {
        let members = self.joined.members.iter().map(|member| (member.stream_id, member.user.username.as_str()));
        members.chain(self.joined.voice.mix_stream_id.map(|mix| (mix, "mix")))
    }
}

/// Signs in, finds or makes the channel, and joins it.
pub(crate) async fn join(access: &AccessArguments, channel: &ChannelArguments, channels: Option<u8>) -> Result<Joined> {
    access.trust.apply()?;
    let rest = Rest::new(access.server.clone())?;
    let account = access.sign_in(&rest).await?;
    let view = find_channel(&rest, &account, channel).await?;
    let config = GatewayConfig {
        server: access.server.clone(),
        others: access.fallback.clone(),
        encoding: access.encoding.into(),
        identity: Identity::Token(account.access_token),
    };
    let (client, events) = Client::connect(config).await.context("the gateway")?;
    let media = match channel.media {
        MediaName::Udp => MediaTransport::Udp,
        MediaName::Websocket => MediaTransport::Websocket,
    };
    let join = JoinChannel {
        channel_id: view.id,
        media,
        mode: match channel.mode {
            ModeName::Forward => MediaMode::Forward,
            ModeName::Mixed => MediaMode::Mixed,
        },
        cipher: channel.cipher.map(Cipher::from),
        sample_rate: None,
        channels,
        invite: None,
    };
    let joined = client.join(join).await.with_context(|| format!("joining {}", view.name))?;
    Ok(Joined { client, events, joined })
}

async fn find_channel(rest: &Rest, account: &Account, channel: &ChannelArguments) -> Result<ChannelView> {
    if let Some(code) = &channel.invite {
        let is_one = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        ensure!(is_one, "{code:?} is no invite: one has letters, digits, - and _ alone");
        let invited = rest.use_invite(&account.access_token, code).await.context("the invite")?;
        if channel.channel.as_ref().is_some_and(|name| *name != invited.name) {
            output::note(format_args!("the invite is to {}", invited.name));
        }
        return Ok(invited);
    }
    let Some(name) = &channel.channel else { bail!("neither a channel nor an invite is named") };
    let found = async {
        if let Some(found) = rest.find_channel(&account.access_token, name).await? {
            return Ok(found);
        }
        let new = NewChannel { name: name.clone(), ..NewChannel::default() };
        let made = rest.make_channel(&account.access_token, &new).await?;
        output::note(format_args!("there was no channel {name}: it was made now"));
        Ok::<_, RestError>(made)
    };
    found.await.with_context(|| format!("the channel {name}"))
}

impl AccessArguments {
    async fn sign_in(&self, rest: &Rest) -> Result<Account> {
        if let Some((user, password)) = self.user.as_deref().zip(self.password.as_deref()) {
            return rest.login(user, password).await.with_context(|| format!("logging in as {user}"));
        }
        let random = || format!("guest-{:06x}", uuid::Uuid::new_v4().as_u128() & 0xff_ffff);
        let name = self.name.clone().unwrap_or_else(random);
        rest.guest(&name).await.with_context(|| format!("making the guest {name}"))
    }
}
