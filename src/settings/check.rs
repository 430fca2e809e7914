//! What must be right between settings.

use super::{
    declaration::Settings,
    reader::{Origin, Problem, Reader},
};

/// A shared secret below this many bytes can be guessed from one token (RFC 7518 3.2 asks for as many as the hash has).
const JWT_SECRET_BYTES_MIN: usize = 32;

/// The keys between nodes come from it.
const CLUSTER_SECRET_BYTES_MIN: usize = 32;

pub(super) fn cross_checks(settings: &Settings, reader: &mut Reader<'_>) {
    let mut problem = |section: &str, key: &str, message: &str| {
        let origin = reader.origin(section, key);
        reader.problems.push(Problem { origin, message: format!("{section}.{key} {message}") });
    };
    let server = &settings.server;
    if server.port != 0 && server.port == server.websocket_port {
        problem("server", "websocket_port", "must differ from server.port (or be 0 for any free port)");
    }
    if settings.redis.url.is_some() {
        check_cluster(settings, &mut problem);
    }
    let auth = &settings.auth;
    match (&auth.issuer, &auth.issuer_jwks) {
        (Some(_), None) => problem("auth", "issuer", "needs auth.issuer_jwks, where the issuer's public keys are"),
        (None, Some(_)) => problem("auth", "issuer_jwks", "needs auth.issuer, the `iss` of the issuer's tokens"),
        (_, Some(jwks)) if !is_safe_jwks(jwks) => {
            problem("auth", "issuer_jwks", "must be an https URL (http only on this machine) or the path of a file");
        }
        _ => {}
    }
    if auth.issuer_audience.is_some() && auth.issuer.is_none() {
        problem("auth", "issuer_audience", "needs auth.issuer");
    }
    if auth.jwt_secret_previous.is_some() && auth.jwt_secret.is_none() {
        problem("auth", "jwt_secret_previous", "needs auth.jwt_secret, the secret in force");
    }
    if settings.limits.max_users_per_channel > settings.limits.max_users_ceiling {
        problem("limits", "max_users_per_channel", "must not be above limits.max_users_ceiling");
    }
    for (key, secret) in [("jwt_secret", &auth.jwt_secret), ("jwt_secret_previous", &auth.jwt_secret_previous)] {
        if secret.as_ref().is_some_and(|secret| secret.expose().len() < JWT_SECRET_BYTES_MIN) {
            let message = format!(
                "auth.{key} is shorter than {JWT_SECRET_BYTES_MIN} bytes: whoever sees one token can guess it and make their own"
            );
            let origin = reader.origin("auth", key);
            reader.warnings.push(Problem { origin, message });
        }
    }
    warn_of_disagreement(reader);
}

/// What nodes of a cluster need besides Redis.
fn check_cluster(settings: &Settings, problem: &mut impl FnMut(&str, &str, &str)) {
    if !settings.database_url().starts_with("postgres") {
        problem(
            "redis",
            "url",
            "makes this node one of a cluster, which needs a database that all nodes reach: set database.url \
             (DATABASE_URL) to a postgres: URL, or take redis.url (REDIS_URL) away for a node on its own",
        );
    }
    match &settings.cluster.secret {
        None => problem(
            "redis",
            "url",
            "makes this node one of a cluster, which needs a secret that all nodes share: set cluster.secret to the same \
             32 or more random characters on each",
        ),
        Some(secret) if secret.expose().len() < CLUSTER_SECRET_BYTES_MIN => {
            problem("cluster", "secret", "must have at least 32 random characters: it seals the voice between nodes");
        }
        Some(_) => {}
    }
}

/// Keys that come over plain HTTP from elsewhere can be replaced on the way.
fn is_safe_jwks(jwks: &str) -> bool {
    let Some(rest) = jwks.strip_prefix("http://") else { return true };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Two variables for one setting that say different things: one of them is probably forgotten.
fn warn_of_disagreement(reader: &mut Reader<'_>) {
    for (winner, other) in reader.overridden() {
        let message = format!("is not used, because {winner} is set too and says otherwise");
        reader.warnings.push(Problem { origin: Origin::Environment(other), message });
    }
}
