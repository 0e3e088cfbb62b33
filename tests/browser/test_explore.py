"""A visitor on the home page, in a real browser: everything a hand does there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.store.study import Study
from tests.browser.server import PATIENCE, Server, settled

pytestmark = pytest.mark.browser
#: Milliseconds for a fit whose model has to be compiled first, on a machine that is busy too.
FITTING = 2000 * PATIENCE


def explorer(page: Page) -> Locator:
    return page.locator(".ppx")


def sidebar(page: Page) -> Locator:
    return page.get_by_test_id("stSidebar")


def sentence(page: Page) -> str:
    return explorer(page).locator(".sentence").inner_text()


def visit(page: Page, server: Server, path: str = "/") -> None:
    page.goto(server.url + path)
    settled(page)
    explorer(page).locator(".sentence").wait_for()


def said(page: Page, unit: str, value: float) -> None:
    expect(explorer(page).locator(".sentence")).to_contain_text(f"School {unit}:")
    shown = f"{value:.1f}".replace("-", "\u2212")
    expect(explorer(page).locator(".sentence .pooled")).to_have_text(shown)


def exact_effect(unit: str, **priors: str) -> float:
    study = Study.default("schools").change(priors={name: Prior.parse(text) for name, text in priors.items()})
    posterior = solve(study.spec(study.data()))
    return float(posterior.mean[posterior.index(f"theta[{unit}]")])


def eventually(page: Page, true: Callable[[], object]) -> None:
    """Wait until something shows that no selector tells."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        page.wait_for_timeout(100)


def tau_in_link(page: Page) -> Prior:
    return Prior.parse(parse_qs(urlsplit(page.url).query)["prior.tau"][0])


def test_a_cold_visitor_sees_the_finished_picture(page: Page, server: Server) -> None:
    visit(page, server)
    expect(explorer(page)).to_contain_text("School A gained 28")
    said(page, "A", 9.7390)
    expect(explorer(page).get_by_role("button", name="Fit", exact=True)).to_be_visible()
    assert page.locator("[data-testid=stException]").count() == 0


def test_a_moved_prior_is_followed_at_once_and_its_link_reopens_it(page: Page, server: Server) -> None:
    visit(page, server)
    slider = explorer(page).locator("section.priors-part input[type=range]").last
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(r"prior\.tau="))
    # The last key press is sent when the hand has rested; the picture follows it at once.
    pooled = explorer(page).locator(".sentence .pooled")
    eventually(page, lambda: pooled.inner_text() == f"{exact_effect('A', tau=tau_in_link(page).text):.1f}")
    settled(page)
    text = tau_in_link(page).text
    assert Prior.parse(text).numbers[0] < 10
    expected = exact_effect("A", tau=text)
    said(page, "A", expected)
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    settled(page)
    said(page, "A", expected)
    assert parse_qs(urlsplit(page.url).query)["prior.tau"] == [text]


def test_the_skeptical_preset_gives_the_skeptical_model(page: Page, server: Server) -> None:
    visit(page, server)
    explorer(page).get_by_text("Skeptical", exact=True).click()
    said(page, "A", exact_effect("A", mu="Normal(8, 5)", tau="HalfNormal(5)"))
    page.wait_for_url(re.compile("model=skeptical"))


def test_dragged_tau_moves_the_forest_to_the_conditional(page: Page, server: Server) -> None:
    visit(page, server)
    pill = explorer(page).get_by_role("slider", name=re.compile("Tau"))
    pill.scroll_into_view_if_needed()
    box = pill.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 8, steps=12)
    page.mouse.up()
    expect(explorer(page).locator(".sentence")).to_contain_text("τ")
    u = float(pill.get_attribute("aria-valuenow") or "nan") / 100
    spec = Study.default("schools").spec(Study.default("schools").data())
    tau = spec.structure.typical_se * u / (1 - u)
    given = solve(spec).given_tau([tau])
    expected = pytest.approx(float(given.theta_mean[0, 0]), abs=0.12)
    # The value is read from an attribute with three digits of u, so the last shown digit may differ.
    pooled = explorer(page).locator(".sentence .pooled")
    eventually(page, lambda: float(pooled.inner_text().replace("\u2212", "-")) == expected)
    pill.press("End")
    expect(explorer(page).locator(".sentence .pooled")).to_have_text("28.0")
    pill.press("Home")
    expect(explorer(page).locator(".sentence .pooled")).not_to_have_text("28.0")
    pill.press("Escape")
    said(page, "A", 9.7390)


def test_a_clicked_unit_is_selected_everywhere(page: Page, server: Server) -> None:
    visit(page, server)
    rows = explorer(page).get_by_role("listbox")
    rows.focus()
    page.keyboard.press("End")
    expect(explorer(page).locator(".sentence")).to_contain_text("School C:")
    page.wait_for_url(re.compile("unit=C"))
    settled(page)
    page.reload()
    settled(page)
    said(page, "C", exact_effect("C"))


def test_a_fit_is_asked_for_watched_and_agrees(page: Page, server: Server) -> None:
    visit(page, server, "/?scenario=schools&seed=7&draws=2000")
    explorer(page).get_by_role("button", name="Fit", exact=True).click()
    expect(sidebar(page).get_by_text("Fit done")).to_be_visible(timeout=FITTING)
    expect(sidebar(page)).to_contain_text("agrees with exact")
    expect(explorer(page).locator(".fit-part")).to_contain_text("8,000 draws")
    page.reload()
    settled(page)
    expect(sidebar(page).get_by_text("Fit done")).to_be_visible()


def test_a_long_fit_can_be_cancelled(page: Page, server: Server) -> None:
    visit(page, server, "/?scenario=schools&seed=8&draws=200000&tune=2000")
    explorer(page).get_by_role("button", name="Fit", exact=True).click()
    explorer(page).get_by_role("button", name="Cancel").click()
    expect(sidebar(page).get_by_text("Fit cancelled")).to_be_visible(timeout=FITTING)
    assert server.health()["running"] == 0


#: One of each kind; what else is refused, and with which words, is in the tests of requests.
@pytest.mark.parametrize(
    "query",
    [
        "scenario=nowhere",
        "scenario=schools&prior.tau=%3Cscript%3Ealert(1)%3C/script%3E",
        "scenario=schools&dataset=simulated&knob.J=1e9",
        "scenario=schools&constant.threshold=inf&model=adaptive",
        "scenario=schools&prior.tau=" + "9" * 5000,
    ],
)
def test_a_link_with_nonsense_opens_the_default_and_says_so(page: Page, server: Server, query: str) -> None:
    visit(page, server, f"/?{query}")
    expect(page.get_by_test_id("stAlert")).to_contain_text("could not be opened")
    expect(explorer(page)).to_contain_text("School A gained 28")
    assert page.locator("[data-testid=stException]").count() == 0


def test_an_improper_prior_is_refused_with_the_reason_and_the_picture_stays(
    page: Page, server: Server
) -> None:
    visit(page, server, "/?scenario=schools&prior.mu=Flat()")
    explorer(page).get_by_label("Family of the prior on tau").select_option("InverseGamma")
    page.wait_for_url(re.compile("InverseGamma"))
    settled(page)
    expect(explorer(page).locator(".sentence")).to_contain_text("School A: 28")
    assert page.locator("[data-testid=stException]").count() == 0


def test_markup_in_a_link_stays_text(page: Page, server: Server) -> None:
    visit(page, server, "/?scenario=schools&unit=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert page.locator("img[src=x]").count() == 0
    expect(explorer(page)).to_contain_text("School A gained 28")


def picture(page: Page) -> list[str]:
    """What the forest says: the sentence and every number beside it."""
    texts = explorer(page).locator(".stage.forest text.pool, .stage.forest text.number").all_inner_texts()
    return [sentence(page), *texts]


def steady_picture(page: Page) -> list[str]:
    """The picture once nothing in it counts up any more."""
    seen = [picture(page)]

    def rests() -> bool:
        page.wait_for_timeout(200)
        seen.append(picture(page))
        return len(seen) > 3 and seen[-1] == seen[-2] == seen[-3]

    eventually(page, rests)
    return seen[-1]


@pytest.mark.parametrize(
    ("family", "field", "refused"),
    [
        (
            "HalfCauchy",
            "scale",
            {"0": "Scale must be above 0", "\u22123": "Scale must be above 0", "xyz": "Type a number"},
        ),
        (
            "Uniform",
            "lower end",
            {"3000": "Lower end must be below upper end", "-5": "Lower end must be 0 or above"},
        ),
    ],
)
def test_impossible_numbers_stay_at_their_field(
    page: Page, server: Server, family: str, field: str, refused: dict[str, str]
) -> None:
    visit(page, server, "/?scenario=schools")
    app = explorer(page)
    if family != "HalfCauchy":
        app.get_by_label("Family of the prior on tau").select_option(family)
        page.wait_for_url(re.compile(family))
        settled(page)
    before, link = steady_picture(page), page.url
    number = app.get_by_label(f"{field} of the prior on tau, exact", exact=True)
    for typed, words in refused.items():
        number.fill(typed)
        number.press("Enter")
        expect(app.locator(".problem:not([hidden])")).to_have_text(words)
        expect(number).to_have_attribute("aria-invalid", "true")
        expect(number).to_have_value(typed)
        expect(app.get_by_role("button", name="Fit", exact=True)).to_be_disabled()
        page.wait_for_timeout(500)
        assert picture(page) == before
        assert page.url == link
        assert "NaN" not in app.inner_html()
    number.fill("2")
    number.press("Enter")
    expect(app.locator(".problem:not([hidden])")).to_have_count(0)
    expect(app.get_by_role("button", name="Fit", exact=True)).to_be_enabled()
    expect(number).to_have_attribute("aria-invalid", "false")


def test_a_huge_number_is_shown_in_full(page: Page, server: Server) -> None:
    visit(page, server)
    number = explorer(page).get_by_label("scale of the prior on tau, exact", exact=True)
    number.fill("1e9")
    number.press("Enter")
    page.wait_for_url(re.compile("prior.tau=HalfCauchy"))
    settled(page)
    expect(number).to_have_value("1e9")
    assert "NaN" not in explorer(page).inner_html()


def test_a_range_out_of_a_familys_reach_is_told(page: Page, server: Server) -> None:
    visit(page, server)
    app = explorer(page)
    app.get_by_role("button", name="Set the prior on tau from a range").click()
    low, high = app.get_by_label("Lower end for tau"), app.get_by_label("Upper end for tau")
    answer = app.locator(".answer:not([hidden])")
    for typed, words in (
        (("abc", "10"), "Type two numbers"),
        (("10", "1"), "The lower end must be below the upper end"),
        (("-5", "10"), "It cannot be negative: start the range at 0 or above"),
    ):
        low.fill(typed[0])
        high.fill(typed[1])
        high.press("Enter")
        expect(answer).to_have_text(words)
        expect(low).to_have_value(typed[0])
        expect(low).to_have_attribute("aria-invalid", "true")
    low.fill("1")
    high.fill("10")
    high.press("Enter")
    expect(answer).to_contain_text("61\u00a0% between 1 and 10 is the nearest it can do")
    expect(answer).to_contain_text("Log-normal or Gamma can meet both ends")
    expect(low).to_have_attribute("aria-invalid", "false")
    low.fill("0")
    high.press("Enter")
    expect(answer).to_have_count(0)


def test_reset_opens_the_explorer_afresh(page: Page, server: Server) -> None:
    visit(page, server)
    app = explorer(page)
    app.get_by_label("scale of the prior on tau, exact", exact=True).fill("3")
    app.get_by_label("scale of the prior on tau, exact", exact=True).press("Enter")
    app.get_by_role("button", name="Pin picture").click()
    app.get_by_label("Order of the schools").select_option("moved")
    app.get_by_role("slider", name=re.compile("Tau")).press("End")
    expect(app.locator(".sentence .pooled")).to_have_text("28.0")
    page.wait_for_url(re.compile(r"prior\.tau"))
    settled(page)
    sidebar(page).get_by_role("button", name="Reset").click()
    said(page, "A", 9.7390)
    expect(app.get_by_role("button", name="Pin picture")).to_be_visible()
    expect(app.get_by_label("Order of the schools")).to_have_value("raw")
    expect(app.get_by_role("radio", name=re.compile("Averaged"))).to_be_checked()
    expect(app.get_by_role("slider", name=re.compile("Tau"))).not_to_have_attribute("aria-valuenow", "100.0")


def test_other_engines_show_the_posterior_beside_every_prior(page: Page, server: Server) -> None:
    visit(page, server, "/?scenario=schools&model=precision")
    for param in ("mu", "tau", "beta"):
        block = explorer(page).locator(".prior", has=page.get_by_label(f"Family of the prior on {param}"))
        expect(block.locator(".sketch .post-area")).to_have_count(1)
        expect(block.locator(".sketch .prior-line")).to_have_count(1)
    expect(explorer(page)).to_contain_text("Posterior: precision.")
    assert "NaN" not in explorer(page).inner_html()


def test_what_stays_averaged_and_what_symbols_mean_is_said(page: Page, server: Server) -> None:
    visit(page, server)
    app = explorer(page)
    expect(app.locator(".sentence")).to_contain_text("School A: 28\u00a0±\u00a015 → 9.7.")
    expect(app.locator(".sentence .tip")).to_have_attribute("title", "± standard error")
    expect(app.locator(".while-held")).to_be_hidden()
    app.get_by_role("slider", name=re.compile("Tau")).press("End")
    expect(app.locator(".while-held")).to_have_text(" Averaged over τ.")
    expect(app.locator(".while-held")).to_be_visible()
    for symbol in ("μ", "τ", "B"):
        assert app.locator(".prior .symbol.tip", has_text=symbol).get_attribute("title")


def test_heavy_tails_say_why_there_is_no_pooling_factor(page: Page, server: Server) -> None:
    visit(page, server, "/?scenario=schools&model=robust")
    expect(explorer(page)).to_contain_text("Heavy tails: no single B.")
    block = explorer(page).locator(".prior", has=page.get_by_label("Family of the prior on nu"))
    expect(block.locator(".sketch .post-area")).to_have_count(1)


def test_a_fit_clicked_at_once_is_of_the_prior_on_screen(page: Page, server: Server) -> None:
    visit(page, server, "/?scenario=schools&seed=9")
    field = explorer(page).get_by_label("scale of the prior on tau, exact", exact=True)
    field.fill("7")
    field.press("Enter")
    explorer(page).get_by_role("button", name="Fit", exact=True).click()
    expect(sidebar(page).get_by_text("Fit done")).to_be_visible(timeout=FITTING)
    assert parse_qs(urlsplit(page.url).query)["prior.tau"] == ["HalfCauchy(7)"]


def test_lines_that_leave_the_picture_end_at_its_edge(page: Page, server: Server) -> None:
    # Hosts h33 and h37 would be read beyond the range of the hosts' own values without a population.
    visit(page, server, "/?scenario=counts&unit=h33")
    panel = explorer(page).locator(".tau-part")
    frame = panel.locator(".stage.tau").bounding_box()
    name = panel.locator("text.end", has_text="h33")
    expect(name).to_have_text("↑ h33")
    expect(panel.locator("text.end", has_text="↑")).to_have_count(2)
    expect(panel.locator(".end-mark")).to_have_count(14)
    places = [mark.bounding_box() for mark in (*panel.locator(".end-mark").all(), name)]
    assert frame and all(place and place["y"] > frame["y"] - 5 for place in places)
