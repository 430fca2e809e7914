//! One connection to Redis, from its beginning to its end: it is never mended, a new one takes its place.
//!
//! So everything that a reconnection brings (a lease to renew, topics to subscribe to again) happens in one place, the
//! same at the start and after each failure, whatever state the client library was in: a server that answers no more
//! leaves the library waiting, and nothing but a new start is sure to end that.

use std::{
    path::Path,
    sync::{Arc, Once},
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, ClusterInterface, EventInterface, LuaInterface, PubsubInterface},
    types::{
        ClusterStateChange, InfoKind, Message, Value,
        cluster::ClusterRouting,
        config::{Config, ConnectionConfig, PerformanceConfig},
        scripts::Script,
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    sync::{broadcast, watch},
    task::AbortHandle,
};

use super::{RedisError, keys::Topic};

/// How long connecting may take, with TLS and the log-in, for each of the two connections.
const CONNECT: Duration = Duration::from_millis(1_500);

/// Messages that may wait for their turn; when there are more, some are lost, which shows.
const MESSAGES: usize = 16_384;

/// Topics in one request.
const TOPICS_AT_ONCE: usize = 500;

/// How to connect: the URL, understood.
#[derive(Clone, Debug)]
pub(super) struct Target {
    config: Config,
    patience: Duration,
}

impl Target {
    /// Reads a URL. `ca_file` holds the certificates that a server's must be signed by, when not the system's.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, RedisError> {
        // The library takes its TLS from the process-wide default; a default that is there already is the same one.
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        let mut config = Config::from_url(url).map_err(|error| RedisError::Url(error.details().to_owned()))?;
        config.fail_fast = true;
        if let (Some(path), Some(tls)) = (ca_file, config.tls.as_mut()) {
            tls.connector = client_config(path)?.into();
        }
        Ok(Self { config, patience: CONNECT })
    }

    /// The same, for whoever would rather wait than try again.
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn client(&self) -> Client {
        let performance = PerformanceConfig { broadcast_channel_capacity: MESSAGES, ..PerformanceConfig::default() };
        let connection = ConnectionConfig {
            connection_timeout: self.patience,
            internal_command_timeout: self.patience,
            // A command is never sent twice: whoever waits for it decides that.
            max_command_attempts: 1,
            ..ConnectionConfig::default()
        };
        Client::new(self.config.clone(), Some(performance), Some(connection), None)
    }
}

fn client_config(path: &Path) -> Result<rustls::ClientConfig, RedisError> {
    let fail = |why: String| RedisError::Certificates { path: path.to_owned(), why };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))? {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail("it holds no certificate".to_owned()));
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A client that is connected until this is dropped.
struct Connected {
    client: Client,
    task: AbortHandle,
    /// Closed when the connection is.
    open: watch::Receiver<()>,
}

impl Connected {
    async fn new(target: &Target) -> Result<Self, Error> {
        let client = target.client();
        let task = client.connect();
        let (is_open, open) = watch::channel(());
        let connected = Self { task: task.abort_handle(), client, open };
        tokio::spawn(async move {
            let _ = task.await;
            drop(is_open);
        });
        let waited = tokio::time::timeout(target.patience, Box::pin(connected.client.wait_for_connect())).await;
        waited.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer while connecting")))?;
        Ok(connected)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection: one way for commands, another for what is published.
pub(super) struct Connection {
    commands: Connected,
    messages: Connected,
    /// Whether pub/sub is sharded: each message goes only to the server that has its topic's slot.
    is_sharded: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("is_sharded", &self.is_sharded).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Arc<Self>, Error> {
        let (commands, messages) = tokio::try_join!(Connected::new(target), Connected::new(target))?;
        let info: String = within(target.patience, commands.client.info(Some(InfoKind::Server))).await?;
        Ok(Arc::new(Self { commands, messages, is_sharded: redis_version_major(&info) >= 7 }))
    }

    /// The command that publishes.
    pub(super) const fn publish_command(&self) -> &'static str {
        if self.is_sharded { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Runs a script. Cut short by whoever waits, it may still have happened.
    pub(super) fn run(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> impl Future<Output = Result<Value, Error>> + Send {
        let (client, script) = (self.commands.client.clone(), script.clone());
        Box::pin(async move {
            match client.evalsha(script.sha1().clone(), keys.clone(), arguments.clone()).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    let text = script.lua().cloned().unwrap_or_default();
                    client.eval(text, keys, arguments).await
                }
                answer => answer,
            }
        })
    }

    /// For single commands.
    pub(super) const fn client(&self) -> &Client {
        &self.commands.client
    }

    pub(super) fn publish(
        &self,
        topic: &Topic,
        message: Vec<u8>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (client, is_sharded, name) = (self.commands.client.clone(), self.is_sharded, topic.name());
        let message = Value::Bytes(message.into());
        Box::pin(async move {
            if is_sharded { client.spublish(name, message).await } else { client.publish(name, message).await }
        })
    }

    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), Error> {
        let client = &self.messages.client;
        if self.is_sharded && client.is_clustered() {
            let names = topics.iter().map(Topic::name);
            for (_, names) in fred::util::group_by_hash_slot(names)? {
                within(CONNECT, client.ssubscribe(Vec::from(names))).await?;
            }
            return Ok(());
        }
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            let names: Vec<String> = topics.iter().map(Topic::name).collect();
            if self.is_sharded {
                within(CONNECT, client.ssubscribe(names)).await?;
            } else {
                within(CONNECT, client.subscribe(names)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, topic: &Topic) -> Result<(), Error> {
        let client = &self.messages.client;
        if self.is_sharded {
            within(CONNECT, client.sunsubscribe(topic.name())).await
        } else {
            within(CONNECT, client.unsubscribe(topic.name())).await
        }
    }

    /// What is published, from now on.
    pub(super) fn messages(&self) -> broadcast::Receiver<Message> {
        self.messages.client.message_rx()
    }

    /// When slots of a cluster have moved, subscriptions may have been lost with them.
    pub(super) fn cluster_changes(&self) -> broadcast::Receiver<Vec<ClusterStateChange>> {
        self.commands.client.cluster_change_rx()
    }

    /// Returns when one of the ways is closed, as far as the library knows.
    pub(super) async fn closed(&self) {
        let closed = |connected: &Connected| {
            let mut open = connected.open.clone();
            async move { while open.changed().await.is_ok() {} }
        };
        tokio::select! {
            () = closed(&self.commands) => {}
            () = closed(&self.messages) => {}
        }
    }

    /// A topic on each server through which messages come, so that none can fall silent unheard.
    pub(super) fn probes(&self, process: u64) -> Vec<Topic> {
        let probe = |probe| Topic::Probe { process, probe };
        let Some(routing) = self.commands.client.cached_cluster_state().filter(|_| self.is_sharded) else {
            return vec![probe(0)];
        };
        let server = |topic: &Topic| routing.get_server(ClusterRouting::hash_key(topic.name().as_bytes())).cloned();
        let mut missing = routing.unique_primary_nodes();
        // One name in as many as there are servers falls to a given server: this is more than are ever needed.
        let most = u32::try_from(missing.len() * 64).unwrap_or(u32::MAX);
        let mut probes = Vec::new();
        for topic in (0..most).map(probe) {
            let at = server(&topic);
            if let Some(index) = missing.iter().position(|server| Some(server) == at.as_ref()) {
                missing.swap_remove(index);
                probes.push(topic);
            }
            if missing.is_empty() {
                break;
            }
        }
        probes
    }
}

/// At most as long as `patience`. The library's futures are large, so that they are kept apart from whoever waits.
pub(super) fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> impl Future<Output = Result<T, Error>> {
    let work = Box::pin(work);
    async move {
        tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer")))
    }
}

fn redis_version_major(info: &str) -> u32 {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    version.and_then(|version| version.split('.').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found() {
        assert_eq!(redis_version_major("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone"), 7);
        assert_eq!(redis_version_major("redis_version:6.2.1"), 6);
        assert_eq!(redis_version_major("something else"), 0);
    }

    #[test]
    fn urls_of_every_kind_are_understood() {
        for url in [
            "redis://localhost",
            "rediss://user:secret@redis.example.org:6380",
            "redis-cluster://one:7000?node=two:7000",
            "rediss-cluster://user:secret@one:7000",
            "redis-sentinel://:secret@one:26379?sentinelServiceName=voice&node=two:26379",
        ] {
            assert!(Target::new(url, None).is_ok(), "{url}");
        }
        assert!(
            matches!(Target::new("redis-sentinel://one:26379", None), Err(RedisError::Url(_))),
            "of which service?"
        );
        let missing = Target::new("rediss://localhost", Some(Path::new("/nowhere.pem")));
        assert!(matches!(missing, Err(RedisError::Certificates { .. })));
    }
}
