//! The server's own page where there is little room.

use crate::{
    chromium::{Chromium, Page},
    support::process::Process,
    visitors::{click, come_in, fill, sees},
};

const WIDTH: u32 = 390;

/// A page as wide as a phone's, before anybody has come in.
async fn phone<'a>(server: &Process, browser: &'a Chromium) -> Page<'a> {
    let page = browser.visit(server.url().http("/").as_str()).await;
    page.resize(WIDTH, 844).await;
    page.until("innerWidth", |width| *width == WIDTH).await;
    page
}

#[tokio::test]
async fn who_comes_in_sees_the_channels_and_no_error_of_before() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let page = phone(&server, &browser).await;
    fill(&page, "#account-name", "nobody").await;
    fill(&page, "#account-password", "a wrong password").await;
    click(&page, "#account-form button[value=login]").await;
    page.until("document.querySelectorAll('#notices .error').length", |errors| *errors == 1).await;
    come_in(&page, "Anna").await;
    page.until("document.querySelectorAll('#notices .error').length", |errors| *errors == 0).await;
    let list = "(() => { const { left, right } = document.querySelector('#channels').getBoundingClientRect(); return left >= 0 && right > 200; })()";
    page.until(list, |shown| shown == true).await;
    page.picture("phone-channels").await;
    click(&page, "#sidebar-close").await;
    page.until("document.querySelector('#sidebar').classList.contains('open')", |open| open == false).await;
}

#[tokio::test]
async fn a_channels_name_and_its_buttons_have_room_beside_how_the_connection_is() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let page = phone(&server, &browser).await;
    come_in(&page, "Anna").await;
    fill(&page, "#create-name", "A channel with a long name").await;
    click(&page, "#create-form button").await;
    sees(&page, &["Anna"]).await;
    page.until("document.querySelector('#connection').dataset.state", |state| state == "good").await;
    for label in ["Good connection · 1 ms", "Bad connection · 1234 ms · 12 % lost", "Connection lost, trying again"]
    {
        let measured = page
            .evaluate(&format!(
                "(() => {{
                    const [connection, name, leave] = ['connection', 'channel-name', 'leave'].map((id) => document.getElementById(id));
                    connection.textContent = '{label}';
                    return {{
                        wide: document.documentElement.scrollWidth,
                        name: name.clientWidth,
                        leave: leave.getBoundingClientRect().right,
                        connection: connection.scrollWidth - connection.clientWidth,
                    }};
                }})()"
            ))
            .await;
        let px = |what: &str| measured[what].as_f64().expect("a number");
        assert!(px("wide") <= f64::from(WIDTH), "nothing to scroll to: {measured}");
        assert!(px("name") >= 120.0 && px("leave") <= f64::from(WIDTH), "{label}: {measured}");
        assert!(px("connection") <= 0.0, "the whole of {label}: {measured}");
    }
    page.picture("phone-connection-lost").await;
}

#[tokio::test]
async fn each_link_of_an_invite_has_a_button_that_copies_it() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let page = phone(&server, &browser).await;
    come_in(&page, "Anna").await;
    fill(&page, "#create-name", "Tea").await;
    click(&page, "#create-form button").await;
    sees(&page, &["Anna"]).await;
    // What a browser without a screen has no clipboard for.
    page.evaluate("void (navigator.clipboard.writeText = async (text) => { window.copied = text; })").await;
    click(&page, "#invite").await;
    page.until("document.querySelector('#invite-dialog').open", |open| open == true).await;
    for (button, part) in [("#invite-copy", "/#channel="), ("#listen-copy", "/listen/")] {
        click(&page, button).await;
        page.until("window.copied ?? ''", |copied| copied.as_str().is_some_and(|copied| copied.contains(part))).await;
    }
}
