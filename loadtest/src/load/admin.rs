//! An administrator of the servers under test, who can drain nodes.

use super::{LoadError, ownership::own_id};
use crate::rest::Rest;

/// Who that is.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// The account's name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({}, ..)", self.name)
    }
}

impl Admin {
    /// Lets the node at that place of the list drain, or take on work again.
    pub(super) async fn drain(&self, servers: &[Rest], place: usize, drain: bool) -> Result<(), LoadError> {
        let server = servers.get(place).ok_or(LoadError::Protocol("has no such place in the list"))?;
        let account = server.login(&self.name, &self.password).await?;
        let node = own_id(server, &account.access_token).await?;
        Ok(server.set_draining(&account.access_token, &node, drain).await?)
    }
}
