//! Answers that the strict server never gives.

use tart_gitlab::{ApiError, RequestOutcome, Token, VerifyOutcome};
use wiremock::matchers::{header, header_exists, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{client, info, poll, system_id};

async fn server(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any()).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn the_plain_200_of_old_servers_confirms_a_runner_and_a_web_page_does_not() {
    let ok = || ResponseTemplate::new(200);
    for (answer, confirmed) in [
        (ok().set_body_raw("200", "text/plain"), true),
        (ok().set_body_raw("200", "application/json"), true),
        (ok().set_body_raw("\"200\"\n", "application/json"), true),
        (ok().set_body_raw("<html>200</html>", "text/html"), false),
        (ok().set_body_raw("", "text/plain"), false),
        (ok().set_body_raw("{}", "application/json"), false),
        (ok().set_body_raw("[]", "application/json; charset=utf-8"), false),
    ] {
        let server = server(answer).await;
        let (client, _) = client(&server.uri());
        let outcome = client.verify(&Token::new("glrt-x"), &system_id(), &info()).await;
        assert_eq!(outcome == VerifyOutcome::Valid(None), confirmed, "{outcome:?}");
        assert!(confirmed || matches!(outcome, VerifyOutcome::Unknown(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn json_with_parameters_in_its_type_is_json() {
    let body = r#"{"id":7,"token":"glrt-new","token_expires_at":"2030-01-02T03:04:05.678Z","new":[1]}"#;
    let server =
        server(ResponseTemplate::new(200).set_body_raw(body, "application/json; charset=utf-8")).await;
    let (client, _) = client(&server.uri());
    match client.verify(&Token::new("glrt-x"), &system_id(), &info()).await {
        VerifyOutcome::Valid(Some(runner)) => {
            assert_eq!((runner.id, runner.token.expose()), (Some(7), "glrt-new"));
            assert!(runner.token_expires_at.is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redirection_on_the_same_host_keeps_method_body_and_token() {
    let target = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/moved"))
        .and(header("runner-token", "glrt-x"))
        .and(header_exists("x-request-id"))
        .and(wiremock::matchers::body_string_contains("glrt-x"))
        .respond_with(ResponseTemplate::new(204))
        .expect(2)
        .mount(&target)
        .await;
    for status in [307, 308] {
        let location = format!("{}/moved", target.uri());
        let server = server(ResponseTemplate::new(status).insert_header("location", location)).await;
        let (client, _) = client(&server.uri());
        let outcome = poll(&client, "glrt-x").await.outcome;
        assert!(matches!(outcome, RequestOutcome::NoJob), "{outcome:?}");
    }
}

#[tokio::test]
async fn tokens_do_not_follow_to_another_host_and_loops_end() {
    let other = server(ResponseTemplate::new(204)).await;
    let elsewhere = other.uri().replace("127.0.0.1", "localhost");
    for (status, location, reason) in [
        (307, elsewhere.as_str(), "another host"),
        (308, elsewhere.as_str(), "another host"),
        (301, "/api/v4/elsewhere", "drops the request's content"),
        (302, "/api/v4/elsewhere", "drops the request's content"),
        (307, "/again", "too many redirections"),
        (307, "ftp://127.0.0.1/", "not usable"),
    ] {
        let server = server(ResponseTemplate::new(status).insert_header("location", location)).await;
        let (client, _) = client(&server.uri());
        match poll(&client, "glrt-x").await.outcome {
            RequestOutcome::Failed(error @ ApiError::Redirect { .. }) => {
                let text = error.to_string();
                assert!(text.contains(reason) && !text.contains("glrt-x"), "{text}");
            }
            other => panic!("{status} {location}: {other:?}"),
        }
    }
    assert_eq!(other.received_requests().await.map(|requests| requests.len()), Some(0));
}

#[tokio::test]
async fn a_job_that_cannot_be_read_does_not_show_its_secrets() {
    let body = r#"{"id":"glcbt-secret","token":"glcbt-secret"}"#;
    let server = server(ResponseTemplate::new(201).set_body_raw(body, "application/json")).await;
    let (client, _) = client(&server.uri());
    match poll(&client, "glrt-x").await.outcome {
        RequestOutcome::Failed(error) => {
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_a_failure_without_retries() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let free = listener.local_addr().expect("an address");
    drop(listener);
    let (client, clock) = client(&format!("http://{free}"));
    let outcome = poll(&client, "glrt-x").await.outcome;
    assert!(matches!(outcome, RequestOutcome::Failed(ApiError::Transport(_))), "{outcome:?}");
    assert!(clock.waits().is_empty());
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_refused_before_it_is_sent() {
    let (client, _) = client("http://127.0.0.1:1");
    let outcome = poll(&client, "glrt-a\nb").await.outcome;
    assert!(matches!(outcome, RequestOutcome::Unhealthy(ApiError::Client(_))), "{outcome:?}");
}
