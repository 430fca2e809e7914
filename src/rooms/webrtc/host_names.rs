//! The hosts that settings name, and where they are. They are looked up at start and again now and then, never because a
//! client says a name: looking one up takes a thread for as long as its name server likes, and would tell strangers which
//! names of the inside there are.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How often names are looked up again.
const LOOKED_UP_EVERY: Duration = Duration::from_secs(60);
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Known = HashMap<String, Vec<IpAddr>>;

/// Where the named hosts are, as far as is known.
pub(in crate::rooms) struct HostNames {
    /// `None` until they were looked up once.
    known: watch::Receiver<Option<Known>>,
}

impl HostNames {
    /// Follows these hosts in a task of its own, until this is dropped. Those that are addresses need not be followed.
    pub(in crate::rooms) fn follow(hosts: impl IntoIterator<Item = String>) -> Self {
        let names: HashSet<String> =
            hosts.into_iter().filter(|host| literal(host).is_none()).map(|host| host.to_ascii_lowercase()).collect();
        let (told, known) = watch::channel(None);
        tokio::spawn(keep_current(names, told));
        Self { known }
    }

    /// The addresses of a host that is an address itself, this machine, or one of those that are followed; `None` for any
    /// other. Waits only while the first look-up goes on.
    pub(super) async fn find(&self, host: &str) -> Option<Vec<IpAddr>> {
        if let Some(found) = literal(host) {
            return Some(found);
        }
        let mut known = self.known.clone();
        let known = known.wait_for(Option::is_some).await.ok()?;
        known.as_ref()?.get(&host.to_ascii_lowercase()).cloned()
    }
}

/// The addresses that a host stands for without being looked up.
fn literal(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok().map(|address| vec![address])
}

async fn keep_current(names: HashSet<String>, told: watch::Sender<Option<Known>>) {
    loop {
        let found = join_all(names.iter().map(|name| look_up(name))).await;
        told.send_modify(|known| {
            let known = known.get_or_insert_default();
            for (name, found) in names.iter().zip(found) {
                // One that cannot be looked up now is most likely where it was.
                match found {
                    Some(found) => _ = known.insert(name.clone(), found),
                    None => _ = known.entry(name.clone()).or_default(),
                }
            }
        });
        tokio::select! {
            () = told.closed() => return,
            () = sleep(LOOKED_UP_EVERY) => {}
        }
    }
}

async fn look_up(name: &str) -> Option<Vec<IpAddr>> {
    match timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => Some(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => {
            tracing::warn!(name, %error, "a host that the settings name cannot be looked up");
            None
        }
        Err(_) => {
            tracing::warn!(name, "a host that the settings name takes too long to look up");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_settings_name_is_looked_up() {
        let (told, known) =
            watch::channel(Some(Known::from([("voice.example.org".to_owned(), vec![[192, 0, 2, 7].into()])])));
        let names = HostNames { known };
        assert_eq!(names.find("Voice.Example.org").await, Some(vec![[192, 0, 2, 7].into()]));
        assert_eq!(names.find("192.0.2.9").await, Some(vec![[192, 0, 2, 9].into()]));
        assert_eq!(names.find("[2001:db8::1]").await, Some(vec!["2001:db8::1".parse().expect("an address")]));
        assert_eq!(names.find("LOCALHOST").await.expect("this machine")[0], IpAddr::from(Ipv4Addr::LOCALHOST));
        // Not even a name that the system itself would know at once.
        for stranger in ["ip6-localhost", "internal.example.org", "", "voice.example.org."] {
            assert_eq!(names.find(stranger).await, None, "{stranger}");
        }
        drop(told);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_known_to_have_none() {
        let names = HostNames::follow(["nowhere.invalid".to_owned(), "192.0.2.1".to_owned()]);
        assert_eq!(names.find("nowhere.invalid").await, Some(Vec::new()));
        assert_eq!(names.known.borrow().as_ref().map(HashMap::len), Some(1), "addresses are not looked up");
    }
}
