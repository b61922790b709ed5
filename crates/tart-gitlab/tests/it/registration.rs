use std::time::Duration;

use insta::assert_snapshot;
use tart_gitlab::{ApiError, Registration, ResetError, Token, UnregisterOutcome, VerifyOutcome};
use tart_test_gitlab::{Endpoint, Fault, RunnerOptions, TestGitlab};

use crate::support::{client, info, system_id};

fn registration() -> Registration {
    Registration {
        description: Some("box".into()),
        tags: vec!["linux".into(), "vm".into()],
        maximum_timeout: Some(Duration::from_secs(3600)),
        run_untagged: true,
        ..Registration::default()
    }
}

#[tokio::test]
async fn a_runner_is_registered_verified_and_removed() {
    let server = TestGitlab::start().await;
    let (client, _) = client(server.url());
    let token = Token::new(server.registration_token());
    let runner = client.register(&token, &registration(), &info()).await.expect("registered");
    assert!(runner.id.is_some() && runner.token_expires_at.is_none() && !runner.token.is_created_runner());

    match client.verify(&runner.token, &system_id(), &info()).await {
        VerifyOutcome::Valid(Some(verified)) => {
            assert_eq!((verified.id, verified.token), (runner.id, runner.token.clone()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.unregister(&runner.token, &system_id()).await, UnregisterOutcome::Removed);
    assert_eq!(client.verify(&runner.token, &system_id(), &info()).await, VerifyOutcome::Removed);
    assert_eq!(client.unregister(&runner.token, &system_id()).await, UnregisterOutcome::Forbidden);
    server.assert_no_violations();
}

#[tokio::test]
async fn refused_registrations_are_explained() {
    let server = TestGitlab::start().await;
    let (client, _) = client(server.url());
    let good = Token::new(server.registration_token());
    let error = async |token: &Token, registration: &Registration| {
        client.register(token, registration, &info()).await.expect_err("refused").to_string()
    };
    assert_snapshot!(
        error(&"GR1348941wrong".into(), &registration()).await,
        @"the server does not know this registration token (403 Forbidden - invalid token supplied); check that it was copied completely"
    );
    assert_snapshot!(
        error(&good, &Registration { maximum_timeout: Some(Duration::from_secs(1)), ..registration() }).await,
        @"the server refuses this registration: maximum_timeout: needs to be at least 10 minutes"
    );
    server.disable_registration();
    assert_snapshot!(
        error(&good, &registration()).await,
        @"this server takes no registration tokens any more (410 Gone - runner registration disallowed); create the runner in GitLab and use its token, which begins with `glrt-`"
    );
    server.assert_no_violations();
}

#[tokio::test]
async fn an_outage_never_counts_as_removal() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    let token = Token::new(runner.token());
    for fault in [
        Fault::Status(500),
        Fault::Status(404),
        Fault::Status(422),
        Fault::Drop,
        Fault::Html,
        Fault::BadJson,
        Fault::HugeBody(2 << 20),
    ] {
        server.faults().always(Endpoint::Verify, fault.clone());
        let outcome = client.verify(&token, &system_id(), &info()).await;
        assert!(matches!(outcome, VerifyOutcome::Unknown(_)), "{fault:?}: {outcome:?}");
        if !matches!(fault, Fault::Status(404)) {
            server.faults().always(Endpoint::DeleteManager, fault.clone());
            let outcome = client.unregister(&token, &system_id()).await;
            assert!(matches!(outcome, UnregisterOutcome::Failed(_)), "{fault:?}: {outcome:?}");
        }
    }
    server.faults().clear(Endpoint::Verify);
    runner.orphan();
    let outcome = client.verify(&token, &system_id(), &info()).await;
    assert!(matches!(outcome, VerifyOutcome::Unknown(ApiError::Status { status: 422, .. })), "{outcome:?}");
    server.assert_no_violations();
}

#[tokio::test]
async fn the_manager_of_a_created_runner_is_removed_but_not_the_runner() {
    let server = TestGitlab::start().await;
    let runner = server.add_runner(RunnerOptions::default());
    let (client, _) = client(server.url());
    let token = Token::new(runner.token());
    assert!(token.is_created_runner());
    assert!(matches!(client.verify(&token, &system_id(), &info()).await, VerifyOutcome::Valid(Some(_))));
    assert_eq!(client.unregister(&token, &system_id()).await, UnregisterOutcome::Removed);
    assert_eq!(client.unregister(&token, &system_id()).await, UnregisterOutcome::NotFound);
    assert!(runner.get().is_some());
    assert_eq!(client.unregister_runner(&token).await, UnregisterOutcome::Removed);
    assert!(runner.get().is_none());
    server.assert_no_violations();
}

#[tokio::test]
async fn tokens_are_renewed_by_themselves_and_by_a_person() {
    let server = TestGitlab::start().await;
    let hour = Duration::from_secs(3600);
    let runner = server.add_runner(RunnerOptions::default().token_expires_in(hour));
    let (client, _) = client(server.url());
    let old = Token::new(runner.token());
    let renewed = client.reset_token(&old).await.expect("renewed");
    assert_eq!(renewed.token.expose(), runner.token());
    let wait = renewed.renew_at().expect("it expires").as_second() - renewed.token_obtained_at.as_second();
    assert!((2695..=2705).contains(&wait), "{wait}");
    assert!(matches!(client.reset_token(&old).await, Err(ResetError::Forbidden(_))));

    let id = i64::try_from(runner.id()).expect("small");
    let by_person = client.reset_token_of(id, &server.private_token().into()).await.expect("renewed");
    assert_eq!(by_person.token.expose(), runner.token());
    assert!(matches!(client.reset_token_of(id, &"glpat-x".into()).await, Err(ResetError::Forbidden(_))));
    server.faults().next(Endpoint::ResetToken, Fault::BadJson);
    assert!(matches!(client.reset_token(&by_person.token).await, Err(ResetError::Failed(_))));
    server.assert_no_violations();
}
