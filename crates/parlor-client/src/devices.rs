//! Devices: signing in and out, the list of sessions, tickets of sockets, where to connect.

use parlor_proto::{
    DeviceId,
    accounts::SignedIn,
    devices::{Device, DeviceList, Gateway, SignIn, Ticket, TicketRequest},
};

use crate::{client::Client, error::Error};

impl Client {
    /// Signs a device in.
    pub async fn sign_in(&self, request: &SignIn) -> Result<SignedIn, Error> {
        self.answer(self.post(&["sessions"], request)?).await
    }

    /// Lists the signed-in devices of the caller, the newest first.
    pub async fn sessions(&self) -> Result<Vec<Device>, Error> {
        let list: DeviceList = self.answer(self.get(&["sessions"])?).await?;
        Ok(list.items)
    }

    /// Signs another device of the caller out.
    pub async fn revoke_session(&self, device_id: DeviceId) -> Result<(), Error> {
        self.done(self.delete(&["sessions", &device_id.to_string()])?).await
    }

    /// Signs this device out.
    pub async fn sign_out(&self) -> Result<(), Error> {
        self.done(self.delete(&["sessions", "current"])?).await
    }

    /// Returns a one-time ticket for a `hello`.
    pub async fn ticket(&self, request: &TicketRequest) -> Result<Ticket, Error> {
        self.answer(self.post(&["ws", "tickets"], request)?).await
    }

    /// Returns where to connect.
    pub async fn gateway(&self) -> Result<Gateway, Error> {
        self.answer(self.get(&["gateway"])?).await
    }
}
