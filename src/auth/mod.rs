//! Who someone is: accounts, passwords, tokens, guests.
//!
//! An *access token* (a JWT, minutes) goes with each request; a *refresh token* (random, weeks, only its hash is kept)
//! buys the next pair. The database, not the token, says what an account may do now: a role taken away or an account
//! switched off counts at once.

mod bearer;
mod guessing;
mod jwks;
mod password;
mod token;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use antiphon_core::{
    gateway::{ErrorCode, Role, UserView},
    ids::UserId,
};
use aws_lc_rs::digest;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

pub use bearer::bearer_token;
pub use guessing::GuessingLimits;

use crate::{
    error::AppError,
    random,
    rates::Rates,
    settings::{LocalState, Secret, Settings},
    store::{
        Attempt, DISPLAY_NAME_CHARS_MAX, LOGIN_PLACE_REMEMBERED, Lifetimes, NAME_CHARS_MAX, NewUser, Rotation, Store,
        StoreError, User, check_name, check_printable, tidied,
    },
    telemetry::metrics::{AuthAction, AuthOutcome, metrics},
};
use guessing::Guess;
use jwks::{Ages, Jwks, Source};
use password::Passwords;
use token::{Claims, Keys, TokenError};

/// What [`Auth`] needs to know.
#[derive(Clone)]
pub struct AuthConfig {
    /// Signs access tokens.
    pub jwt_secret: Secret,
    /// Still accepted.
    pub jwt_secret_previous: Option<Secret>,
    /// How long access tokens last.
    pub access_token_ttl: Duration,
    /// How long refresh tokens last.
    pub refresh_ttl: Lifetimes,
    /// How many logins an account may have at once.
    pub logins_per_account: u32,
    /// Whether people may come in with a name only.
    pub guests: bool,
    /// How many guests there may be.
    pub guests_max: u32,
    /// How many of them may be made from one address within the time that a guest is remembered; 0 for any number.
    pub guests_per_address: u32,
    /// How many may come from one address in a minute; 0 for any number.
    pub guests_per_minute_per_address: u32,
    /// Passwords hashed at once; 0 for half of the processors.
    pub password_hashes_at_once: u16,
    /// How many may wait for one to be hashed.
    pub password_hash_queue: u32,
    /// What keeps passwords from being guessed.
    pub guessing: GuessingLimits,
    /// Whose tokens are accepted beside our own.
    pub issuer: Option<IssuerConfig>,
    /// What time it is.
    pub clock: Clock,
}

/// An external issuer of tokens.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// What their `aud` must name, if anything.
    pub audience: Option<String>,
    /// A URL or a file with its JWK set.
    pub jwks: String,
}

/// What time it is.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

impl AuthConfig {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &Settings, local: &LocalState) -> Self {
        let auth = &settings.auth;
        let seconds = |count: u32| Duration::seconds(count.into());
        Self {
            jwt_secret: local.jwt_secret.clone(),
            jwt_secret_previous: auth.jwt_secret_previous.clone(),
            access_token_ttl: seconds(auth.access_token_ttl_s),
            refresh_ttl: Lifetimes { account: seconds(auth.refresh_token_ttl_s), guest: seconds(auth.guest_ttl_s) },
            logins_per_account: auth.logins_per_account,
            guests: auth.guests,
            guests_max: settings.limits.guests,
            guests_per_address: settings.limits.guests_per_address.unwrap_or((settings.limits.guests / 4).max(1)),
            guests_per_minute_per_address: settings.limits.guests_per_minute_per_address,
            password_hashes_at_once: auth.password_hashes_at_once,
            password_hash_queue: auth.password_hash_queue,
            guessing: GuessingLimits {
                per_account_and_address: auth.failures_per_account_and_address,
                per_account: auth.failures_per_account,
                per_address: auth.failures_per_address,
                forgiven_after: seconds(auth.failure_forgiven_s),
            },
            issuer: auth.issuer.clone().zip(auth.issuer_jwks.clone()).map(|(issuer, jwks)| IssuerConfig {
                issuer,
                jwks,
                audience: auth.issuer_audience.clone(),
            }),
            clock: Arc::new(OffsetDateTime::now_utc),
        }
    }
}

/// An account to be made.
#[derive(Clone)]
pub struct Register {
    /// 1 to 32 printable characters, unique without regard to case.
    pub username: String,
    /// At least 8 characters.
    pub password: String,
    /// 1 to 64 printable characters; the username when not given.
    pub display_name: Option<String>,
}

/// What a successful login, sign-up or refresh gives.
#[derive(Clone)]
pub struct Tokens {
    /// Who that is.
    pub user: UserView,
    /// For the next minutes' requests.
    pub access_token: String,
    /// For the next refresh, once.
    pub refresh_token: String,
    /// How long the access token lasts, in seconds.
    pub expires_in: u64,
}

/// Who an access token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: UserView,
    /// Until when the token says so, in Unix seconds.
    pub expires_at_s: u64,
}

/// Accounts, passwords and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Store,
    config: AuthConfig,
    keys: Keys,
    passwords: Passwords,
    issuer: Option<(IssuerConfig, Jwks)>,
    guest_rates: Option<Rates<[u8; 8]>>,
    /// What of all guests each address may have.
    guest_shares: Option<Rates<[u8; 8]>>,
}

/// The issuer under which subjects that are no UUIDs are kept, of tokens made elsewhere with our secret.
const SHARED_SECRET: &str = "";
/// The longest subject of a token made elsewhere, in bytes.
const SUBJECT_BYTES_MAX: usize = 255;
/// How many names are tried for someone from elsewhere whose name is taken.
const NAMES_TRIED: u32 = 20;

impl Auth {
    /// Over `store`, as configured.
    ///
    /// # Errors
    /// When no HTTPS client for the external issuer's keys can be made.
    pub fn new(store: Store, config: AuthConfig) -> Result<Self, reqwest::Error> {
        let issuer = match &config.issuer {
            None => None,
            Some(issuer) => Some((issuer.clone(), Jwks::new(Source::new(&issuer.jwks)?, Ages::default()))),
        };
        Ok(Self(Arc::new(Inner {
            keys: Keys::new(&config.jwt_secret, config.jwt_secret_previous.as_ref()),
            passwords: Passwords::new(config.password_hashes_at_once, config.password_hash_queue),
            issuer,
            guest_rates: Rates::new(config.guests_per_minute_per_address),
            guest_shares: Rates::over(config.guests_per_address, config.refresh_ttl.guest.unsigned_abs()),
            store,
            config,
        })))
    }

    /// Makes an account with a password. The first of an empty database is an administrator.
    ///
    /// # Errors
    /// `INVALID_INPUT` for names or passwords that won't do, `CONFLICT` for a taken username.
    pub async fn register(&self, register: Register) -> Result<Tokens, AppError> {
        counted(AuthAction::Register, self.0.register(register).await)
    }

    /// Makes a guest, where guests are allowed: someone at `address` with a name and no password.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` where they are not, `INVALID_INPUT`, `CONFLICT`, `LIMIT_REACHED` when there are too many,
    /// `RATE_LIMITED` when too many come from that address.
    pub async fn guest(&self, address: IpAddr, username: &str, display_name: Option<&str>) -> Result<Tokens, AppError> {
        counted(AuthAction::Guest, self.0.guest(address, username, display_name).await)
    }

    /// Logs in with a password, from `address`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for an unknown name or a wrong password alike, `RATE_LIMITED` after too many of them,
    /// `PERMISSION_DENIED` for an account that was switched off.
    pub async fn login(&self, address: IpAddr, username: &str, password: &str) -> Result<Tokens, AppError> {
        counted(AuthAction::Login, self.0.login(address, username, password).await)
    }

    /// Buys new tokens with a refresh token, once. Used again it ends all that came of the same login.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for an unknown, expired or used token or an account that was switched off.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, AppError> {
        counted(AuthAction::Refresh, self.0.refresh(refresh_token).await)
    }

    /// Keeps guests who are here from being forgotten, however long ago they came: to be called at least every
    /// [`Auth::guests_kept_for`] / 2 with all of them.
    ///
    /// # Errors
    /// `TEMPORARILY_UNAVAILABLE` when the database cannot be asked.
    pub async fn keep_guests(&self, guests: &[UserId]) -> Result<(), AppError> {
        let expires_at = self.0.now() + self.0.config.refresh_ttl.guest;
        for guest in guests {
            self.0.store.extend_refresh_families(*guest, expires_at).await?;
        }
        Ok(())
    }

    /// How long a guest is remembered who neither refreshes nor is here.
    #[must_use]
    pub fn guests_kept_for(&self) -> Duration {
        self.0.config.refresh_ttl.guest
    }

    /// Forgets which addresses guests came from: to be called every few seconds.
    pub fn sweep(&self) {
        self.0.guest_rates.iter().chain(&self.0.guest_shares).for_each(Rates::sweep);
    }

    /// Ends the login that a refresh token belongs to. Its access token runs out by itself.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for an unknown token.
    pub async fn logout(&self, refresh_token: &str) -> Result<(), AppError> {
        counted(AuthAction::Logout, self.0.logout(refresh_token).await)
    }

    /// Says whom an access token stands for: one of ours, one made elsewhere with our secret, or the external issuer's.
    /// Who is not known yet gets an account.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`; `TEMPORARILY_UNAVAILABLE` when the database or the issuer's keys cannot be had.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, AppError> {
        counted(AuthAction::Token, self.0.authenticate(token).await)
    }

    /// Whether an account is known to be switched off, or is no more. False where the database cannot say.
    pub async fn is_switched_off(&self, user: UserId) -> bool {
        self.0.store.user(user).await.is_ok_and(|user| user.is_none_or(|user| !user.is_active))
    }

    /// Whether an account is an administrator's, and not switched off.
    ///
    /// # Errors
    /// `TEMPORARILY_UNAVAILABLE` when the database cannot be asked.
    pub async fn is_admin(&self, user: UserId) -> Result<bool, AppError> {
        Ok(self.0.store.is_admin(user).await?)
    }

    /// Those of some accounts that are switched off or are no more.
    ///
    /// # Errors
    /// `TEMPORARILY_UNAVAILABLE` when the database cannot be asked.
    pub async fn unusable(&self, users: &BTreeSet<UserId>) -> Result<BTreeSet<UserId>, AppError> {
        Ok(self.0.store.unusable(users).await?)
    }
}

impl Inner {
    fn now(&self) -> OffsetDateTime {
        (self.config.clock)()
    }

    async fn register(&self, register: Register) -> Result<Tokens, AppError> {
        let Register { username, password, display_name } = register;
        let display_name = check_names(&username, display_name.as_deref())?;
        // Before the work of hashing, and again by the database.
        if self.store.user_by_name(&username).await?.is_some() {
            return Err(StoreError::Conflict("username").into());
        }
        let password_hash = Some(self.passwords.hash(password).await?);
        let new = NewUser { display_name, password_hash, first_is_admin: true, ..NewUser::named(username) };
        let user = self.store.create_user(new).await?;
        self.start_session(&user).await
    }

    async fn guest(&self, address: IpAddr, username: &str, display_name: Option<&str>) -> Result<Tokens, AppError> {
        if !self.config.guests {
            let message = "guests are not allowed here: register with a password";
            return Err(AppError::new(ErrorCode::PermissionDenied, message));
        }
        let display_name = check_names(username, display_name)?;
        for rates in self.guest_rates.iter().chain(&self.guest_shares) {
            rates.check(&guessing::network(address), "guests from this address")?;
        }
        let new = NewUser { display_name, ..NewUser::named(username) };
        let user = self.store.create_guest(new, self.config.guests_max).await?;
        self.start_session(&user).await
    }

    async fn login(&self, address: IpAddr, username: &str, password: &str) -> Result<Tokens, AppError> {
        // Longer than any name or password there is: no work is done for it.
        if username.chars().count() > NAME_CHARS_MAX || password.len() > password::BYTES_MAX {
            return Err(wrong_login());
        }
        let now = self.now();
        let guess = Guess::new(&self.config.guessing, username, address);
        let is_known_place = self.store.is_login_place(guess.place, now - LOGIN_PLACE_REMEMBERED).await?;
        let buckets = guess.buckets(is_known_place);
        if let Attempt::Refused { retry_after } = self.store.begin_login_attempt(&buckets, now).await? {
            let seconds =
                (retry_after.whole_seconds().unsigned_abs() + u64::from(retry_after.subsec_nanoseconds() > 0)).max(1);
            let message = format!("too many failed logins; try again in {seconds} s");
            return Err(AppError::retry(ErrorCode::RateLimited, message, seconds));
        }
        let (user, hash) = self.store.credentials(username).await?.unzip();
        let matches = match self.passwords.verify(password.to_owned(), hash).await {
            Ok(matches) => matches,
            Err(error) => {
                // Nothing was tried.
                self.store.take_back_login_attempt(&buckets).await?;
                return Err(error);
            }
        };
        let Some(user) = user.filter(|_| matches) else { return Err(wrong_login()) };
        self.store.take_back_login_attempt(&buckets).await?;
        if !user.is_active {
            return Err(AppError::new(ErrorCode::PermissionDenied, "this account is switched off"));
        }
        self.store.remember_login_place(&guess.own, guess.place, now).await?;
        self.start_session(&user).await
    }

    async fn refresh(&self, refresh_token: &str) -> Result<Tokens, AppError> {
        let next = new_refresh_token();
        let rotation =
            self.store.rotate_refresh(hash(refresh_token), hash(&next), self.now(), self.config.refresh_ttl).await?;
        match rotation {
            Rotation::Rotated(user) if user.is_active => self.tokens(&user, next),
            Rotation::Rotated(user) => {
                self.store.end_refresh_families_of(user.id).await?;
                Err(unauthenticated("this account is switched off"))
            }
            Rotation::Reused => {
                tracing::warn!("a used refresh token came again: the login it belongs to has ended");
                Err(unauthenticated("this refresh token was used before, so its login has ended; log in again"))
            }
            Rotation::Unknown => Err(unauthenticated("this refresh token is unknown or has expired; log in again")),
        }
    }

    async fn logout(&self, refresh_token: &str) -> Result<(), AppError> {
        if self.store.end_refresh_family(hash(refresh_token)).await? {
            Ok(())
        } else {
            Err(unauthenticated("this refresh token is unknown or has expired"))
        }
    }

    async fn authenticate(&self, token: &str) -> Result<Identity, AppError> {
        let header = token::header(token).map_err(refused)?;
        let (claims, user) = match (&self.issuer, header.alg.family()) {
            (Some((issuer, jwks)), family) if family != jsonwebtoken::AlgorithmFamily::Hmac => {
                let claims = self.verify_external(issuer, jwks, token, &header).await?;
                let user = self.external_user(&issuer.issuer, &claims, Role::User).await?;
                (claims, user)
            }
            _ => {
                let verified = self.keys.verify(token, &header, self.now()).map_err(refused)?;
                let user = self.shared_secret_user(&verified).await?;
                (verified.claims, user)
            }
        };
        if !user.is_active {
            return Err(unauthenticated("this account is switched off"));
        }
        Ok(Identity { user: user.view(), expires_at_s: claims.expires_at_s() })
    }

    async fn verify_external(
        &self,
        issuer: &IssuerConfig,
        jwks: &Jwks,
        token: &str,
        header: &jsonwebtoken::Header,
    ) -> Result<Claims, AppError> {
        let check = |key: &jwks::PublicKey| token::verify(token, &key.key, header.alg).ok();
        let found = jwks.try_keys(header.kid.as_deref(), header.alg, check).await.map_err(|jwks::Unavailable| {
            let message = "the keys of the token's issuer cannot be read; try again shortly";
            AppError::retry(ErrorCode::TemporarilyUnavailable, message, 10)
        })?;
        let claims = found.ok_or(TokenError::Signature).map_err(refused)?;
        claims.check_times(self.now()).map_err(refused)?;
        claims.check_parties(&issuer.issuer, issuer.audience.as_deref()).map_err(refused)?;
        Ok(claims)
    }

    /// Whom a token signed with our secret is about.
    async fn shared_secret_user(&self, verified: &token::Verified) -> Result<User, AppError> {
        let claims = &verified.claims;
        let role = if claims.role.as_deref() == Some("admin") { Role::Admin } else { Role::User };
        let Ok(id) = Uuid::try_parse(&claims.sub) else {
            return self.external_user(SHARED_SECRET, claims, role).await;
        };
        if let Some(user) = self.store.user(UserId(id)).await? {
            return Ok(user);
        }
        if verified.is_ours {
            return Err(unauthenticated("this account does not exist any more"));
        }
        self.provision(claims, role, Some(UserId(id)), None).await
    }

    /// Whom a token is about that `issuer` made.
    async fn external_user(&self, issuer: &str, claims: &Claims, role: Role) -> Result<User, AppError> {
        let subject = &claims.sub;
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
            return Err(unauthenticated("the token's sub is empty or too long"));
        }
        match self.store.external_user(issuer, subject).await? {
            Some(user) => Ok(user),
            None => self.provision(claims, role, None, Some((issuer, subject))).await,
        }
    }

    /// Makes the account of someone whose token is made elsewhere, under the name it says or the nearest free one.
    async fn provision(
        &self,
        claims: &Claims,
        role: Role,
        id: Option<UserId>,
        identity: Option<(&str, &str)>,
    ) -> Result<User, AppError> {
        let called = claims.name.as_deref().or(claims.preferred_username.as_deref()).unwrap_or_default();
        let base = tidied(called, NAME_CHARS_MAX).unwrap_or_else(|| "user".to_owned());
        for attempt in 1..=NAMES_TRIED {
            let username = numbered(&base, attempt);
            let new = NewUser { id, role, display_name: base.clone(), ..NewUser::named(username) };
            let made = match identity {
                None => self.store.create_user(new).await,
                Some((issuer, subject)) => self.store.create_external_user(issuer, subject, new).await,
            };
            let existing = match made {
                Ok(user) => return Ok(user),
                Err(StoreError::Conflict("username")) => None,
                // Another connection with the same token was faster.
                Err(StoreError::Conflict(_)) => match (id, identity) {
                    (Some(id), _) => self.store.user(id).await?,
                    (_, Some((issuer, subject))) => self.store.external_user(issuer, subject).await?,
                    (None, None) => None,
                },
                Err(error) => return Err(error.into()),
            };
            if let Some(user) = existing {
                return Ok(user);
            }
        }
        Err(StoreError::Conflict("username").into())
    }

    /// Starts a login's family of refresh tokens.
    async fn start_session(&self, user: &User) -> Result<Tokens, AppError> {
        let refresh_token = new_refresh_token();
        let now = self.now();
        let expires_at = now + self.config.refresh_ttl.of(user.is_guest);
        let most = self.config.logins_per_account;
        self.store.start_refresh_family(user.id, hash(&refresh_token), now, expires_at, most).await?;
        self.tokens(user, refresh_token)
    }

    fn tokens(&self, user: &User, refresh_token: String) -> Result<Tokens, AppError> {
        let lifetime = self.config.access_token_ttl;
        let signed = self.keys.sign(user.id, &user.username, user.role, self.now(), lifetime);
        let access_token = signed.map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            internal()
        })?;
        let expires_in = lifetime.whole_seconds().unsigned_abs();
        Ok(Tokens { user: user.view(), access_token, refresh_token, expires_in })
    }
}

/// Checks a username and a display name, and gives the display name, which is the username when there is none.
fn check_names(username: &str, display_name: Option<&str>) -> Result<String, AppError> {
    let invalid = |message| AppError::new(ErrorCode::InvalidInput, message);
    check_name("username", username).map_err(invalid)?;
    let display_name = display_name.unwrap_or(username);
    check_printable("display_name", display_name, DISPLAY_NAME_CHARS_MAX).map_err(invalid)?;
    Ok(display_name.to_owned())
}

/// The `attempt`th name to try for someone called `base`: as it is, then with small numbers, then with random ones.
fn numbered(base: &str, attempt: u32) -> String {
    let suffix = match attempt {
        1 => return base.to_owned(),
        2..10 => format!("-{attempt}"),
        _ => format!("-{:08x}", random::number()),
    };
    let kept: String = base.chars().take(NAME_CHARS_MAX - suffix.len()).collect();
    format!("{}{suffix}", kept.trim_end())
}

/// 32 random bytes as text.
fn new_refresh_token() -> String {
    random::text::<32>()
}

/// What is kept of a refresh token. It is random already: a fast hash does.
fn hash(refresh_token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, refresh_token.as_bytes()).as_ref());
    out
}

fn unauthenticated(message: &str) -> AppError {
    AppError::new(ErrorCode::Unauthenticated, message)
}

/// The same for an unknown name and a wrong password.
fn wrong_login() -> AppError {
    unauthenticated("unknown username or wrong password")
}

fn refused(error: TokenError) -> AppError {
    unauthenticated(&error.to_string())
}

fn internal() -> AppError {
    AppError::new(ErrorCode::InternalError, "an internal error; the server's log has more")
}

/// Counts an attempt by how it ended.
fn counted<T>(action: AuthAction, result: Result<T, AppError>) -> Result<T, AppError> {
    let outcome = match result.as_ref().map_err(|error| error.code) {
        Ok(_) => AuthOutcome::Ok,
        Err(ErrorCode::RateLimited) => AuthOutcome::Locked,
        Err(ErrorCode::InvalidInput | ErrorCode::Conflict) => AuthOutcome::Invalid,
        Err(ErrorCode::TemporarilyUnavailable | ErrorCode::InternalError) => AuthOutcome::Unavailable,
        Err(_) => AuthOutcome::Refused,
    };
    metrics().auth.attempts.of((action, outcome)).increment(1);
    result
}
