//! The database, Redis, and the clocks.

use std::path::Path;

use super::report::{Group, Report};
use crate::{cluster::RedisFacts, settings::Settings, store::DatabaseFacts};

/// Tokens name moments: between nodes, and to an issuer, clocks may differ by as much without anybody noticing.
const CLOCK_AHEAD_S_WARN: f64 = 5.0;
/// From here on tokens of others are refused as of the future, or run out early.
const CLOCK_AHEAD_S_FAIL: f64 = 60.0;

/// The release from which on published messages go to the servers of their topic alone.
const REDIS_MAJOR: u32 = 7;

pub(super) async fn examine(settings: &Settings, report: &mut Report) {
    let database = database(settings, &mut report.group("database")).await;
    let redis = redis(settings, &mut report.group("redis")).await;
    let mut group = report.group("clock");
    for (whose, ahead) in [
        ("the database's clock", database.and_then(|facts| facts.clock_ahead_s)),
        ("Redis' clock", redis.map(|facts| facts.clock_ahead_s)),
    ] {
        if let Some(ahead) = ahead {
            clock(whose, ahead, &mut group);
        }
    }
    synchronised(&mut group);
}

async fn database(settings: &Settings, group: &mut Group<'_>) -> Option<DatabaseFacts> {
    let shown = settings.shown_database_url();
    if settings.database_file().is_some_and(|file| !file.exists()) {
        group.ok(format!("{shown} is made at the first start"));
        return None;
    }
    let facts = match DatabaseFacts::ask(&settings.database_url()).await {
        Ok(facts) => facts,
        Err(error) => {
            let fix = "is it running, do database.url's name and password hold, does a firewall let this machine in?";
            group.fail(format!("{shown}: {error}"), fix);
            return None;
        }
    };
    group.ok(format!("{shown} is {}", facts.version));
    migrations(&facts, group);
    let wanted = settings.database.max_connections;
    match facts.connections_max {
        Some(most) if most <= wanted => group.warn(
            format!("it takes {most} connections from all clients, and one node may want {wanted}"),
            "raise its max_connections above the nodes' number times database.max_connections, or lower the latter",
        ),
        Some(most) => group.ok(format!("it takes {most} connections: enough for {} nodes", most / wanted)),
        None => {}
    }
    Some(facts)
}

fn migrations(facts: &DatabaseFacts, group: &mut Group<'_>) {
    let DatabaseFacts { migrations_applied: applied, migrations_pending, migrations_unknown, .. } = facts;
    if *migrations_unknown > 0 {
        let found = format!("{migrations_unknown} of its migrations are a later release's");
        group
            .warn(found, "the release before the one that made them may run on; an older one may not: update this one");
    } else if *migrations_pending > 0 {
        group.ok(format!("{migrations_pending} migrations are applied at the next start"));
    } else {
        group.ok(format!("all {applied} migrations are applied"));
    }
}

async fn redis(settings: &Settings, group: &mut Group<'_>) -> Option<RedisFacts> {
    let Some(url) = &settings.redis.url else {
        group.ok("none: a node on its own");
        return None;
    };
    let facts = match RedisFacts::ask(url.expose(), settings.redis.ca_file.as_deref().map(Path::new)).await {
        Ok(facts) => facts,
        Err(error) => {
            let fix = "is it running, do redis.url's name and password hold, does a firewall let this machine in?";
            group.fail(format!("{url}: {error}"), fix);
            return None;
        }
    };
    let RedisFacts { version, mode, role, .. } = &facts;
    if facts.version_major() < REDIS_MAJOR {
        let found = format!("{url} is Redis {version}: published messages go to all its servers");
        group.warn(found, format!("{REDIS_MAJOR}.0 or later spares them that"));
    } else {
        group.ok(format!("{url} is Redis {version}, {mode}"));
    }
    if (mode == "cluster") != url.scheme().ends_with("-cluster") {
        let fix =
            "redis-cluster: is for a cluster, redis: for a server on its own, redis-sentinel: for one with a Sentinel";
        group.fail(format!("redis.url is {}: and the server says {mode}", url.scheme()), fix);
    }
    if role == "slave" {
        group.fail("it is a replica, which takes no changes", "name the primary in redis.url, or use redis-sentinel:");
    }
    memory(&facts, group);
    Some(facts)
}

fn memory(facts: &RedisFacts, group: &mut Group<'_>) {
    if facts.memory_bytes_max > 0 && facts.eviction != "noeviction" {
        let found =
            format!("when its memory is full it throws away what nodes share (maxmemory-policy {})", facts.eviction);
        group.fail(found, "`CONFIG SET maxmemory-policy noeviction`, and in its file");
    } else {
        group.ok("it throws nothing away when its memory is full");
    }
    let kept = if facts.is_appending { "keeps its data over a restart" } else { "forgets all at a restart" };
    group.ok(format!("it {kept}; nodes write back what is theirs in either case"));
}

fn clock(whose: &str, ahead_s: f64, group: &mut Group<'_>) {
    let way = if ahead_s < 0.0 { "behind" } else { "ahead of" };
    let found = format!("{whose} is {:.3} s {way} this machine's", ahead_s.abs());
    let fix = "let a time service (systemd-timesyncd, chrony) set the clocks of all machines";
    match ahead_s.abs() {
        ahead_s if ahead_s >= CLOCK_AHEAD_S_FAIL => group.fail(found, fix),
        ahead_s if ahead_s >= CLOCK_AHEAD_S_WARN => group.warn(found, fix),
        _ => group.ok(found),
    }
}

/// Whether a time service says that it has set the clock. In a container nobody says anything.
fn synchronised(group: &mut Group<'_>) {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        group.ok("systemd-timesyncd has set it");
    } else if Path::new("/run/chrony").exists() {
        group.ok("chrony sets it: `chronyc tracking` says how well");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn verdicts(tell: impl FnOnce(&mut Group<'_>)) -> Vec<Verdict> {
        let mut report = Report::default();
        tell(&mut report.group("test"));
        report.findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn clocks_that_differ_are_told_by_how_much() {
        for (ahead, verdict) in
            [(0.2, Verdict::Ok), (-7.0, Verdict::Warn), (-3_600.0, Verdict::Fail), (90.0, Verdict::Fail)]
        {
            assert_eq!(verdicts(|group| clock("a clock", ahead, group)), [verdict], "{ahead}");
        }
    }

    #[test]
    fn migrations_of_a_later_release_are_worth_a_word() {
        let facts = DatabaseFacts {
            version: String::new(),
            migrations_applied: 2,
            migrations_pending: 0,
            migrations_unknown: 1,
            connections_max: None,
            clock_ahead_s: None,
        };
        assert_eq!(verdicts(|group| migrations(&facts, group)), [Verdict::Warn]);
        let facts = DatabaseFacts { migrations_unknown: 0, ..facts };
        assert_eq!(verdicts(|group| migrations(&facts, group)), [Verdict::Ok]);
    }
}
