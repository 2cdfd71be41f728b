//! Answers every message with the same text: `PARLOR_TOKEN=… echo_bot http://127.0.0.1:8080`.

use std::error::Error;

use parlor_client::{Change, Client, FileStore, Options, Replica};
use parlor_proto::EventBody;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("give the address of the server")?;
    let client = Client::new(&server)?.with_token(&std::env::var("PARLOR_TOKEN")?);
    let me = client.me().await?.user_id;
    let store = FileStore::new("echo_bot.state");
    let (replica, mut changes) = Replica::start(&client, store, Options::default())?;
    while let Some(change) = changes.next().await {
        match change {
            Change::Event(event) => {
                if let EventBody::Message { message } = &event.body
                    && message.sender_id != me
                    && !message.deleted
                {
                    replica.send_text(event.chat_id, &message.message).await?;
                    replica.mark_read(event.chat_id, event.seq).await?;
                }
            }
            Change::State(state) => println!("{state:?}"),
            _ => {}
        }
    }
    Ok(())
}
