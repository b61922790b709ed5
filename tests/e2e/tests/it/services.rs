//! Services of jobs: beside the job in its VM, apart from it and from each other.

use serde_json::json;
use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Image, JobHandle, JobSpec, JobState, Variable};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples};

/// A web server that exposes two ports and listens on one, and says on its pages what it sees of the guest.
fn web() -> ImageBuilder {
    let serve = "#!/bin/sh\n\
        mkdir -p /srv\n\
        { echo \"host=$(cat /etc/hostname) $(busybox hostname) user=$(id -u) own=$OWN public=$PUBLIC secret=${SECRET:-none}\"\n\
          echo \"processes: $(ps | grep -c -v PID) first=$$ tree=$(cat /etc/whose)\"\n\
          echo \"builds: $(ls /builds) hosts: $(cut -f 2 /etc/hosts | tr '\\n' ' ')\"\n\
        } > /srv/index.html\n\
        echo \"serving $1\"\n\
        exec busybox httpd -f -p 8080 -h /srv\n";
    let files = Files::new().file("bin/serve", 0o755, serve).file("etc/whose", 0o644, "service\n");
    samples::busybox()
        .expect("busybox-static is installed")
        .layer(files.tar(), Compression::Gzip)
        .config("Entrypoint", json!(["/bin/serve"]))
        .config("Cmd", json!(["by default"]))
        .config("ExposedPorts", json!({"9999/tcp": {}, "8080/tcp": {}}))
}

/// A registry with that server.
pub(crate) fn registry() -> TestRegistry {
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    registry.push_image(&web(), "tools/web:1").expect("the registry takes it");
    registry
}

/// The server as a service.
pub(crate) fn service(registry: &TestRegistry, alias: &str) -> Image {
    Image::new(registry.reference("tools/web:1")).alias(alias)
}

async fn finished(job: &JobHandle, wanted: JobState) -> String {
    assert_eq!(job.wait_finished(JOB).await, wanted, "{}", job.log());
    job.log()
}

fn assert_has(log: &str, expected: &[&str]) {
    for text in expected {
        assert!(log.contains(text), "no {text:?} in {log}");
    }
}

#[tokio::test]
async fn services_are_reached_by_their_names_and_see_nothing_of_the_job() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default());
    let registry = registry();
    let one = service(&registry, "one, first").variable(Variable::new("OWN", "mine-$PUBLIC"));
    let two = service(&registry, "two").command(["on request"]);
    let script = [
        "curl -s http://one:8080/ | sed 's/^/one: /'",
        "curl -s http://two:8080/ | sed 's/^/two: /'",
        "curl -s http://first:8080/ -o /dev/null && echo alias works",
        "echo host $(hostname) sees $(ps -e | grep -c httpd) servers",
        "nobody() { ! curl -s -m 2 \"$1\" >/dev/null && echo \"nobody at $1\"; }; nobody http://localhost:8080/",
        "test ! -e /etc/whose && echo own tree",
    ];
    let job = JobSpec::script(script)
        .service(one)
        .service(two)
        .variable(Variable::new("PUBLIC", "for all"))
        .variable(Variable::new("SECRET", "hidden").private());
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    let name = registry.reference("tools/web:1");
    assert_has(
        &log,
        &[
            &format!("Starting service {name} ..."),
            "Waiting for services to be up and running (timeout 30 seconds)...",
            "one: host=web-0 web-0 user=0 own=mine-for all public=for all secret=none",
            "two: host=web-1 web-1 user=0 own= public=for all secret=none",
            "one: processes: ",
            "first=1 tree=service",
            "alias works",
            "nobody at http://localhost:8080/",
            "own tree",
        ],
    );
    assert!(!log.contains("probably didn't start properly"), "{log}");
    scene.drain(tart).await;
    scene.finish();
}

#[tokio::test]
async fn a_service_that_does_not_come_up_is_told_of_with_its_log() {
    let scene = Scene::start(&Config::default()).await;
    let registry = registry();
    let name = registry.reference("tools/web:1");
    let text = "wait_for_services_timeout = 2\nallowed_services = [\"*:*/tools/*\"]\n\
                [[runners.docker.services]]\nname = \"NAME\"\nalias = \"always\"\nentrypoint = [\"sh\", \"-c\", \"echo $WHY >&2; exit 7\"]\n\
                environment = [\"WHY=out of luck\"]";
    scene.own_store(Config::default().docker(&text.replace("NAME", &name)));
    let silent =
        service(&registry, "silent").entrypoint(["sh", "-c", "echo I sleep; exec busybox sleep 1000"]);
    let talkative = service(&registry, "talk");
    let job = JobSpec::script([
        "echo the job runs; curl -s http://talk:8080/ >/dev/null; busybox true || true",
        "sleep 1",
    ])
    .env("CI_DEBUG_SERVICES", "true")
    .service(silent)
    .service(talkative);
    let job = scene.server.enqueue(job).await;
    let refused = JobSpec::script(["true"]).service(Image::new("elsewhere/web:1"));
    let refused = scene.server.enqueue(refused).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    assert_has(
        &log,
        &[
            "Waiting for services to be up and running (timeout 2 seconds)...",
            &format!("*** WARNING: Service {name} probably didn't start properly."),
            "Health check error:",
            "service \"web-0\" exited with code 7",
            "service \"web-1\" timeout",
            "waiting for TCP connection to 172.30.253.3 on [8080 9999]...",
            "Service container logs:",
            "out of luck",
            "I sleep",
            "*********",
            "[service:web-talk] ",
            "Z serving by default",
            "the job runs",
        ],
    );
    let log = finished(&refused, JobState::Failed).await;
    assert_has(&log, &["the service `elsewhere/web:1` is not on the runner's list of allowed services"]);
    scene.drain(tart).await;
    scene.finish();
}

/// The programs of two databases, and how each is started as its own image does it.
fn databases(registry: &TestRegistry) {
    let files = samples::debian(&["postgresql-15", "redis-server"]).expect("mmdebstrap fetches them");
    let postgres = "#!/bin/sh\nset -e\nPATH=/usr/lib/postgresql/15/bin:$PATH\n\
        initdb -D \"$PGDATA\" -A trust -U postgres --no-sync >/dev/null\n\
        echo 'host all all all trust' >> \"$PGDATA/pg_hba.conf\"\n\
        echo \"create database $POSTGRES_DB\" | postgres --single -D \"$PGDATA\" postgres >/dev/null\n\
        exec postgres -D \"$PGDATA\" -k /tmp -c 'listen_addresses=*'\n";
    let own = Files::new()
        .directory("tmp/", 0o1777)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:26:26::/var/lib/postgresql:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\npostgres:x:26:\n")
        .owned_directory("var/lib/postgresql/data/", 0o700, (26, 26))
        .file("usr/local/bin/start-postgres", 0o755, postgres);
    let image = ImageBuilder::new().layer(files, Compression::None).layer(own.tar(), Compression::Gzip);
    let path = json!([
        "PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin",
        "PGDATA=/var/lib/postgresql/data"
    ]);
    let image = image.config("Env", path);
    let postgres = image
        .clone()
        .config("User", json!("postgres"))
        .config("Volumes", json!({"/var/lib/postgresql/data": {}}))
        .config("ExposedPorts", json!({"5432/tcp": {}}))
        .config("Entrypoint", json!(["start-postgres"]));
    let redis = image.config("ExposedPorts", json!({"6379/tcp": {}})).config(
        "Cmd",
        json!(["redis-server", "--bind", "*", "--protected-mode", "no", "--save", "", "--dir", "/tmp"]),
    );
    registry.push_image(&postgres, "postgres:15").expect("the registry takes it");
    registry.push_image(&redis, "redis:7").expect("the registry takes it");
}

#[tokio::test]
async fn postgresql_and_redis_serve_a_job() {
    let scene = Scene::start(&Config::default()).await;
    scene.own_store(Config::default().microvm("memory = \"1GiB\"").docker("wait_for_services_timeout = 300"));
    let registry = TestRegistry::start(Options::default()).expect("a registry");
    databases(&registry);
    let project = scene.server.create_project("group/shop").await;
    project
        .commit_file("schema.sql", "create table goods (name text); insert into goods values ('pear');\n")
        .await;
    let postgres = Image::new(registry.reference("postgres:15"))
        .alias("db")
        .variable(Variable::new("POSTGRES_DB", "shop_$CI_PROJECT_NAME"));
    let script = [
        "psql -q -h db -U postgres shop_shop -f schema.sql",
        "psql -h postgres -U postgres shop_shop -At -c \"select 'there is one ' || name from goods\"",
        "redis-cli -h redis set fruit plum && redis-cli -h redis get fruit",
        "redis-cli -h redis info server",
    ];
    let job = JobSpec::of(&project, script)
        .image(Image::new(registry.reference("redis:7")))
        .service(postgres.alias("db, postgres"))
        .service(Image::new(registry.reference("redis:7")).alias("redis"));
    let job = scene.server.enqueue(job).await;
    let tart = scene.run();
    let log = finished(&job, JobState::Success).await;
    assert_has(&log, &["there is one pear", "OK", "plum", "redis_version:7."]);
    assert!(!log.contains("probably didn't start properly"), "{log}");
    scene.drain(tart).await;
    scene.finish();
}
