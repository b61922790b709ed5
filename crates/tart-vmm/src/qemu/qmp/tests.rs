use std::future::Future;

use proptest::prelude::*;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"major":7}},"capabilities":[]}}"#;

type Client = Qmp<WriteHalf<DuplexStream>>;

/// The other end: reads commands, says what it is told.
struct Fake {
    commands: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

impl Fake {
    async fn say(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// The next command and its id.
    async fn hear(&mut self) -> (String, u64) {
        let mut line = String::new();
        self.commands.read_line(&mut line).await.unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        (value["execute"].as_str().unwrap().to_owned(), value["id"].as_u64().unwrap())
    }

    async fn answer(&mut self, value: &str) {
        let (_, id) = self.hear().await;
        self.say(&format!(r#"{{"return":{value},"id":{id}}}"#)).await;
    }
}

fn pair() -> (impl Future<Output = Result<Client, QmpError>>, Fake) {
    let (near, far) = duplex(1 << 20);
    let (reader, writer) = split(near);
    let (commands, far_writer) = split(far);
    (Qmp::start(reader, writer, LIMIT), Fake { commands: BufReader::new(commands), writer: far_writer })
}

async fn started() -> (Client, Fake) {
    let (client, mut fake) = pair();
    let server = async {
        fake.say(GREETING).await;
        assert_eq!(fake.hear().await, ("qmp_capabilities".to_owned(), 1));
        fake.say(r#"{"return":{},"id":1}"#).await;
    };
    let (client, ()) = tokio::join!(client, server);
    (client.unwrap(), fake)
}

#[tokio::test]
async fn answers_find_their_commands_in_any_order_among_events() {
    let (client, mut fake) = started().await;
    let (first, second, ()) =
        tokio::join!(client.execute("a", json!({}), LIMIT), client.execute("b", json!({}), LIMIT), async {
            let (a, b) = (fake.hear().await, fake.hear().await);
            fake.say(r#"{"event":"STOP","timestamp":{"seconds":1,"microseconds":2}}"#).await;
            fake.say(&format!(r#"{{"return":"{}","id":{}}}"#, b.0, b.1)).await;
            fake.say(r#"{"return":"stray","id":99}"#).await;
            fake.say(r#"{"return":"nameless"}"#).await;
            fake.say(&format!(r#"{{"id":{},"return":"{}"}}"#, a.1, a.0)).await;
        });
    assert_eq!((first.unwrap(), second.unwrap()), (json!("a"), json!("b")));
}

#[tokio::test]
async fn a_refusal_tells_why() {
    let (client, mut fake) = started().await;
    let (result, ()) = tokio::join!(client.execute("cont", json!({}), LIMIT), async {
        let (_, id) = fake.hear().await;
        fake.say(&format!(r#"{{"id":{id},"error":{{"class":"GenericError","desc":"not now"}}}}"#)).await;
    });
    insta::assert_snapshot!(result.unwrap_err(), @"refused `cont`: not now");
}

#[tokio::test]
async fn a_command_without_answer_times_out_and_later_ones_work() {
    let (client, mut fake) = started().await;
    let error = client.execute("slow", json!({}), SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::Timeout { .. }), "{error}");
    fake.answer("{}").await;
    let (result, ()) = tokio::join!(client.execute("next", json!({}), LIMIT), fake.answer("7"));
    assert_eq!(result.unwrap(), json!(7));
}

#[tokio::test]
async fn waiting_commands_fail_when_the_connection_ends() {
    let (client, mut fake) = started().await;
    let (result, ()) = tokio::join!(client.execute("quit", json!({}), LIMIT), async move {
        fake.hear().await;
    });
    assert_eq!(result.unwrap_err(), QmpError::Closed);
    assert_eq!(client.execute("again", json!({}), LIMIT).await.unwrap_err(), QmpError::Closed);
}

#[tokio::test]
async fn an_end_before_the_greeting_is_known() {
    let (client, fake) = pair();
    drop(fake);
    assert_eq!(client.await.unwrap_err(), QmpError::Closed);
}

#[tokio::test]
async fn an_endless_line_ends_the_connection() {
    let (client, mut fake) = started().await;
    let (result, ()) = tokio::join!(client.execute("a", json!({}), LIMIT), async {
        fake.writer.write_all(&vec![b'x'; 300 * 1024]).await.unwrap();
    });
    assert_eq!(result.unwrap_err(), QmpError::Closed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_lines_never_panic(text in ".{0,200}", json in r#"\{"(return|event|error|QMP|id)":[\[{"0-9a-z,:}\]]{0,30}\}"#) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for bytes in [text.as_bytes(), json.as_bytes()] {
                let mut lines = BufReader::new(bytes);
                while next(&mut lines).await.is_ok() {}
            }
        });
    }
}
