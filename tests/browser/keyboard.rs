//! The server's own page by keyboard and by what assistive programs are told, in its dark and its light colours.

use serde_json::{Value, json};

use crate::{
    chromium::{Chromium, Page},
    support::process::Process,
    visitors::{click, come_in, enter, fill, sees},
};

/// Where the focus is: an id, or whose part it is.
const FOCUS: &str = "(() => {
    const { activeElement: at } = document;
    return at.id || at.ariaLabel || at.textContent.trim() || at.tagName;
})()";

/// Presses a key, with Shift where it begins with it.
async fn press(page: &Page<'_>, key: &str) {
    let (modifiers, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
    let text = if key == "Enter" { "\r" } else { "" };
    for kind in ["keyDown", "keyUp"] {
        let text = if kind == "keyDown" { text } else { "" };
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            _ => panic!("{key} has no number here"),
        };
        let event = json!({
            "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers, "text": text,
        });
        page.tool("Input.dispatchKeyEvent", event).await;
    }
}

/// Goes on by Tab until the focus is somewhere.
async fn tab_to(page: &Page<'_>, wanted: &str) {
    let mut passed = Vec::new();
    while passed.len() < 40 {
        press(page, "Tab").await;
        let focus = page.evaluate(FOCUS).await;
        if focus == wanted {
            return;
        }
        passed.push(focus);
    }
    panic!("Tab does not lead to {wanted}, but to {passed:?}");
}

async fn is_at(page: &Page<'_>, wanted: &str) {
    page.until(FOCUS, |focus| focus == wanted).await;
}

/// What can be used has a name for those who do not see it.
async fn assert_named(page: &Page<'_>, place: &str) {
    let tree = page.tool("Accessibility.getFullAXTree", json!({})).await;
    let roles = [
        "button",
        "textbox",
        "searchbox",
        "checkbox",
        "combobox",
        "link",
        "list",
        "dialog",
        "meter",
        "log",
        "complementary",
        "region",
        "navigation",
    ];
    let nodes = tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false);
    let used = nodes.filter(|node| roles.iter().any(|role| node["role"]["value"] == *role));
    let used: Vec<&Value> = used.collect();
    assert!(used.len() > 2, "{place}: {used:?}");
    let nameless = used.iter().filter(|node| node["name"]["value"].as_str().is_none_or(str::is_empty));
    let nameless: Vec<_> = nameless.map(|node| (&node["role"]["value"], &node["nodeId"])).collect();
    assert!(nameless.is_empty(), "{place}: {nameless:?}");
}

/// All that is seen and has too little contrast: text below 4.5 to 1, the edges of what can be used below 3 to 1 (WCAG 2.2, AA).
const PALE: &str = "(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const over = (colours) => {
        canvas.globalCompositeOperation = 'source-over';
        for (const colour of ['#fff', ...colours]) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const luminance = (data) => [0.2126, 0.7152, 0.0722].reduce((sum, share, at) => {
        const part = data[at] / 255;
        return sum + share * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    }, 0);
    const ratio = (one, other) => {
        const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const grounds = (element) => {
        const found = [];
        for (let at = element; at; at = at.parentElement) found.unshift(getComputedStyle(at).backgroundColor);
        return found;
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        const { width, height } = element.getBoundingClientRect();
        const style = getComputedStyle(element);
        if (width < 2 || height < 2 || style.visibility === 'hidden' || element.disabled || element.closest('figure')) continue;
        const below = grounds(element);
        const told = (what, colour, least) => {
            const has = ratio(over([...below, colour]), over(below));
            if (has < least) found.push(`${what} of ${element.id || element.className || element.tagName}: ${has.toFixed(2)}`);
        };
        const hasText = [...element.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (hasText || element.matches('input, textarea, select')) told('text', style.color, 4.5);
        if (element.placeholder) told('placeholder', getComputedStyle(element, '::placeholder').color, 4.5);
        if (element.matches('input:not([type=checkbox]), textarea, select')) {
            const outside = grounds(element.parentElement);
            const has = ratio(over([...outside, style.borderColor]), over(outside));
            if (has < 3) found.push(`edge of ${element.id}: ${has.toFixed(2)}`);
        }
    }
    return found;
})()";

async fn nothing_is_pale(page: &Page<'_>, place: &str) {
    for scheme in ["light", "dark"] {
        page.scheme(scheme).await;
        assert_eq!(page.evaluate(PALE).await, json!([]), "{place}, {scheme}");
    }
}

#[tokio::test]
async fn a_visitor_without_a_mouse_comes_in_talks_and_answers() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let (anna, berta) = (browser.visit(&home).await, browser.visit(&home).await);
    anna.resize(1_400, 900).await;
    is_at(&anna, "guest-name").await;
    fill(&anna, "#guest-name", "Anna").await;
    press(&anna, "Enter").await;
    // What was pressed is gone, and the focus is where one came to.
    anna.until("document.querySelector('#me').textContent", |me| me == "Anna").await;
    is_at(&anna, "channel-name").await;
    press(&anna, "Shift+Tab").await;
    is_at(&anna, "sign-out").await;
    anna.evaluate("document.querySelector('#create-name').focus()").await;
    fill(&anna, "#create-name", "Tea").await;
    press(&anna, "Enter").await;
    sees(&anna, &["Anna"]).await;
    is_at(&anna, "channel-name").await;
    anna.until("document.querySelector('#level').value", |level| level.as_f64() > Some(0.0)).await;
    tab_to(&anna, "mute").await;
    press(&anna, "Enter").await;
    anna.until("document.querySelector('#mute').ariaPressed", |pressed| pressed == "true").await;
    is_at(&anna, "mute").await;
    assert_eq!(anna.evaluate("document.querySelector('#mute').textContent").await, "M Mute", "pressed says the rest");

    // Who comes is said to those who listen to the page, and what they write, once.
    come_in(&berta, "Berta").await;
    enter(&berta, "Tea").await;
    sees(&anna, &["Anna", "Berta"]).await;
    berta.until("document.querySelector('#chat').hidden", |hidden| hidden == false).await;
    for text in ["one", "two"] {
        fill(&berta, "#message-text", text).await;
        click(&berta, "#message-form button.primary").await;
        berta.until("document.querySelector('#message-text').value", |left| left == "").await;
    }
    let said = "[...document.querySelectorAll('#said > div')].map((said) => said.textContent)";
    anna.until(said, |said| *said == json!(["Berta came in.", "Berta: one", "Berta: two"])).await;

    // The list of people is drawn anew while somebody is at one of its buttons, who stays there.
    tab_to(&anna, "Mute: Berta").await;
    let anew = "document.querySelector('#people .badge + button, #people .visually-hidden + button') !== null";
    click(&berta, "#deafen").await;
    anna.until(anew, |drawn| drawn == true).await;
    is_at(&anna, "Mute: Berta").await;

    // Through the messages by arrows, to what can be done to one by Tab.
    tab_to(&anna, "messages").await;
    press(&anna, "ArrowUp").await;
    press(&anna, "ArrowUp").await;
    let row = "document.activeElement.closest('li')?.querySelector('.text').textContent ?? ''";
    anna.until(row, |text| text == "one").await;
    press(&anna, "Tab").await;
    is_at(&anna, "Answer with 👍").await;
    press(&anna, "Enter").await;
    berta.until("document.querySelector('#messages .signs')?.textContent ?? ''", |signs| signs == "👍 1").await;
    anna.until("Boolean(document.querySelector('#messages .signs'))", |drawn| drawn == true).await;
    anna.until(row, |text| text == "one").await;
    tab_to(&anna, "message-text").await;

    // Out again, and the focus goes along.
    anna.evaluate("document.querySelector('#leave').focus()").await;
    press(&anna, "Enter").await;
    anna.until("document.querySelector('#leave').hidden", |hidden| hidden == true).await;
    is_at(&anna, "channel-name").await;
}

#[tokio::test]
async fn everything_has_a_name_and_is_seen_in_the_dark_and_in_the_light() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let (anna, berta) = (browser.visit(&home).await, browser.visit(&home).await);
    anna.evaluate("document.querySelector('details').open = true").await;
    nothing_is_pale(&anna, "the welcome").await;
    assert_named(&anna, "the welcome").await;
    come_in(&anna, "Anna").await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    come_in(&berta, "Berta").await;
    enter(&berta, "Tea").await;
    sees(&anna, &["Anna", "Berta"]).await;
    anna.until("document.querySelector('#chat').hidden", |hidden| hidden == false).await;
    fill(&anna, "#message-text", "@Berta, https://example.org").await;
    click(&anna, "#message-form button.primary").await;
    anna.until("document.querySelectorAll('#messages li').length", |rows| *rows == 1).await;
    click(&anna, "#messages .acts button").await;
    anna.until("Boolean(document.querySelector('#messages .signs'))", |drawn| drawn == true).await;
    click(&anna, "#deafen").await;
    click(&anna, "#mute").await;
    nothing_is_pale(&anna, "a channel").await;
    assert_named(&anna, "a channel").await;
    for (button, dialog) in [("#settings", "#devices"), ("#invite", "#invite-dialog"), ("#bell", "#bell-dialog")] {
        click(&anna, button).await;
        anna.until(&format!("document.querySelector('{dialog}').open"), |open| open == true).await;
        nothing_is_pale(&anna, dialog).await;
        assert_named(&anna, dialog).await;
        if dialog == "#bell-dialog" {
            click(&anna, "#preferences-open").await;
            anna.until("document.querySelector('#preferences').open", |open| open == true).await;
            nothing_is_pale(&anna, "the preferences").await;
            assert_named(&anna, "the preferences").await;
        } else {
            press(&anna, "Escape").await;
            anna.until(&format!("document.querySelector('{dialog}').open"), |open| open == false).await;
        }
    }
}

#[tokio::test]
async fn on_a_phone_the_list_of_channels_opens_and_closes_with_the_focus() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let page = browser.visit(server.url().http("/").as_str()).await;
    page.resize(390, 844).await;
    come_in(&page, "Anna").await;
    fill(&page, "#create-name", "Tea").await;
    click(&page, "#create-form button").await;
    sees(&page, &["Anna"]).await;
    is_at(&page, "channel-name").await;
    let expanded = "document.querySelector('#sidebar-open').ariaExpanded";
    assert_eq!(page.evaluate(expanded).await, "false");
    page.evaluate("document.querySelector('#sidebar-open').focus()").await;
    press(&page, "Enter").await;
    page.until(expanded, |expanded| expanded == "true").await;
    is_at(&page, "sidebar-close").await;
    press(&page, "Escape").await;
    page.until(expanded, |expanded| expanded == "false").await;
    is_at(&page, "sidebar-open").await;
}
