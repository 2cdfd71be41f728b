//! Receipts over HTTP: reporting a position by a message, and the status of an own message.

use parlor_proto::{
    MessageId,
    receipts::{MessageStatus, OwnStatus, PutStatus, ReceiptKind},
};

use crate::{client::Client, error::Error};

impl Client {
    /// Reports a message, and with it all earlier ones of its chat, as delivered or read.
    pub async fn put_status(
        &self,
        message_id: MessageId,
        status: ReceiptKind,
    ) -> Result<OwnStatus, Error> {
        let path = ["messages", &message_id.to_string(), "status"];
        self.answer(self.put(&path, &PutStatus { status })?).await
    }

    /// Returns the status of a message for each of its recipients.
    pub async fn message_status(&self, message_id: MessageId) -> Result<MessageStatus, Error> {
        self.answer(self.get(&["messages", &message_id.to_string(), "status"])?).await
    }
}
