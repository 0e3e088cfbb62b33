"""A visitor without a browser: speaks Streamlit's protocol with the running server, as its client does.

A page is asked for, a WebSocket opened with the cookies that came, and every act is a rerun request with
the address and the state of what was touched. Messages the server may keep back are kept here for as long.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlencode

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hbm_core.models.prior import Prior

#: Runs for which a browser keeps a message that the server may refer to; its default.
KEPT_RUNS = 2
#: Says whether the explorer's data are those that an act should lead to.
Expected = Callable[[Mapping[str, Any]], bool]


@dataclass
class Heard:
    """What came back for one act, in seconds after it was sent (at `at`, of the clock `perf_counter`)."""

    at: float = field(default_factory=time.perf_counter)
    picture: float | None = None
    finished: float | None = None
    bytes: int = 0


@dataclass
class Visitor:
    """One session on a running server.

    Parameters
    ----------
    url : str
        Of the server, without a slash at its end.
    """

    url: str
    errors: list[str] = field(default_factory=list)
    #: What the explorer was last told.
    explorer: dict[str, Any] = field(default_factory=dict)
    #: Texts of the page by their place; every other element by its kind.
    shown: dict[tuple[int, ...], str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    query: str = ""
    connection: ClientConnection | None = None
    runs: int = 0
    _id: str = ""
    #: The fragment that the explorer stands in: what the hand does there runs it alone.
    _fragment: str = ""
    #: The one that the last act runs; a page changes as a whole.
    _acted: str = ""
    _page: str = ""
    _nonce: int = 0
    _kept: dict[str, tuple[int, Element]] = field(default_factory=dict)
    _waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)
    _timers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _reader: asyncio.Task[None] | None = None
    _heard: Heard = field(default_factory=Heard)
    _expected: Expected | None = None

    # Coming and going ---------------------------------------------------------------------------------------

    async def open(self, query: Mapping[str, str] | None = None, page: str = "") -> Heard:
        """Ask for the page as a browser does, connect, and wait for the first finished run."""
        cookies = await asyncio.to_thread(self._cookies, page)
        token = cookies.get("_streamlit_xsrf", "")
        self.connection = await connect(
            self.url.replace("http", "ws", 1) + "/_stcore/stream",
            origin=self.url,  # type: ignore[arg-type]
            subprotocols=["streamlit", token] if token else ["streamlit"],  # type: ignore[list-item]
            additional_headers={"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())},
            compression=None,
            max_size=None,
        )
        self._reader = asyncio.create_task(self._read())
        self.query = urlencode(query or {})
        return await self._act(ClientState(page_name=page), _anything if not page else None)

    def _cookies(self, page: str) -> dict[str, str]:
        jar = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        for path in (f"/{page}", "/_stcore/health", "/_stcore/host-config"):
            with opener.open(self.url + path, timeout=240) as answer:
                answer.read()
        return {cookie.name: cookie.value or "" for cookie in jar}

    async def close(self) -> None:
        """Leave: the socket goes, as when a tab is closed."""
        for timer in self._timers.values():
            timer.cancel()
        if self.connection is not None:
            await self.connection.close()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    # Acting -------------------------------------------------------------------------------------------------

    async def move(self, **priors: Prior) -> Heard:
        """Move priors as the hand does, and wait for the server's own picture of them and its run's end."""
        value = {name: value_of(prior) for name, prior in priors.items()}
        state = ClientState()
        self._tell(state, "priors", self._told(value))
        return await self._act(state, lambda data: _shows(data, value), self._fragment)

    async def move_and_fit(self, **priors: Prior) -> Heard:
        """Move priors and press Fit before the server has taken the first.

        Both come in one message, whose list of widgets has no order of its own: here the button is first.
        """
        value = {name: value_of(prior) for name, prior in priors.items()}
        moved, pressed = ClientState(), ClientState()
        self._tell(moved, "priors", self._told(value))
        self._press(pressed, "fit")
        state = ClientState()
        state.widget_states.widgets.extend([*pressed.widget_states.widgets, *moved.widget_states.widgets])
        return await self._act(state, lambda data: _shows(data, value), self._fragment)

    async def select(self, unit: str, query: str | None = None) -> Heard:
        """Select a unit; `query` is the address as the browser still has it."""
        state = ClientState()
        self._tell(state, "unit", unit)
        newest, self.query = self.query, self.query if query is None else query
        heard = await self._act(state, lambda data: data["focus"] == unit, self._fragment)
        if self.query == query:
            self.query = newest
        return heard

    async def link(self, query: Mapping[str, str], priors: Mapping[str, Prior]) -> Heard:
        """Go to a link in the running session (Back, Forward), and wait for the picture of these priors."""
        self.query = urlencode(query)
        value = {name: value_of(prior) for name, prior in priors.items()}
        return await self._act(ClientState(is_history_navigation=True), lambda data: _shows(data, value))

    async def trigger(self, event: str) -> Heard:
        """Press one of the explorer's buttons: "fit" or "cancel"."""
        state = ClientState()
        self._press(state, event)
        return await self._act(state, fragment=self._fragment)

    def _told(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {**{entry["param"]: _numbers(entry) for entry in self.explorer["priors"]}, **value}

    def _tell(self, state: ClientState, event: str, value: object) -> None:
        self._nonce += 1
        widget = state.widget_states.widgets.add()
        widget.id = self._id
        widget.json_value = json.dumps({event: {"value": value, "nonce": self._nonce}})

    def _press(self, state: ClientState, event: str) -> None:
        self._nonce += 1
        widget = state.widget_states.widgets.add()
        widget.id = _make_trigger_id(self._id, "events")
        widget.json_trigger_value = json.dumps([{"event": event, "value": {"nonce": self._nonce}}])

    async def visit(self, page: str) -> Heard:
        """Follow the navigation to another page, and wait for its end."""
        self._page = self.pages[page]
        return await self._act(ClientState(), None if page else _anything)

    async def rerun(self) -> Heard:
        """Ask for a run that changes nothing."""
        return await self._act(ClientState())

    async def until(self, true: Callable[[], bool], seconds: float = 240.0) -> None:
        """Wait until something shows."""
        if not true():
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((true, waiting))
            await asyncio.wait_for(waiting, seconds)

    async def _act(self, state: ClientState, expected: Expected | None = None, fragment: str = "") -> Heard:
        heard = self._heard = Heard()
        self._expected = expected
        self._acted = state.fragment_id = fragment
        await self._send(state)
        await self.until(lambda: heard.finished is not None)
        return heard

    async def _send(self, state: ClientState, fragment: str = "") -> None:
        assert self.connection is not None
        state.query_string = self.query
        state.page_script_hash = self._page
        state.cached_message_hashes.extend(self._kept)
        context = state.context_info
        context.timezone, context.locale, context.color_scheme = "UTC", "en", "light"
        context.url = self.url
        if fragment:
            state.fragment_id, state.is_auto_rerun = fragment, True
        await self.connection.send(BackMsg(rerun_script=state).SerializeToString())

    # Listening ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self.connection is not None
        try:
            async for frame in self.connection:
                assert isinstance(frame, bytes)
                message = ForwardMsg.FromString(frame)
                self._heard.bytes += len(frame)
                self._take(message)
        except ConnectionClosed as closed:
            self.errors.append(f"disconnected: {closed}")
        finally:
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(ConnectionError("the server closed the connection"))

    def _take(self, message: ForwardMsg) -> None:
        match message.WhichOneof("type"):
            case "new_session":
                started = message.new_session
                self._page = started.page_script_hash or self._page
                self.pages |= {page.url_pathname: page.page_script_hash for page in started.app_pages}
                if not message.metadata.run.fragment_ids:
                    self._stop_timers()
                    self.shown.clear()
            case "navigation":
                found = message.navigation.app_pages
                self.pages |= {
                    "" if page.is_default else page.url_pathname: page.page_script_hash for page in found
                }
                self._page = message.navigation.page_script_hash or self._page
            case "page_info_changed":
                self.query = message.page_info_changed.query_string
            case "ref_hash":
                _, element = self._kept[message.ref_hash]
                self._kept[message.ref_hash] = (self.runs, element)
                self._draw(tuple(message.metadata.delta_path), element)
            case "delta":
                if message.delta.WhichOneof("type") == "new_element":
                    if message.metadata.cacheable:
                        self._kept[message.hash] = (self.runs, message.delta.new_element)
                    if message.delta.new_element.WhichOneof("type") == "bidi_component":
                        self._fragment = message.delta.fragment_id or self._fragment
                    self._draw(tuple(message.metadata.delta_path), message.delta.new_element)
            case "auto_rerun":
                rule = message.auto_rerun
                self._stop_timers(rule.fragment_id)
                self._timers[rule.fragment_id] = asyncio.create_task(
                    self._again(rule.fragment_id, rule.interval)
                )
            case "stop_auto_rerun":
                for name in message.stop_auto_rerun.fragment_ids:
                    self._stop_timers(name)
            case "session_event":
                self.errors.append(str(message.session_event)[:300])
            case "script_finished":
                self._finish(message.script_finished, message.metadata.run.fragment_ids)
        for true, future in list(self._waiting):
            if not future.done() and true():
                future.set_result(None)
        self._waiting = [pair for pair in self._waiting if not pair[1].done()]

    def _draw(self, place: tuple[int, ...], element: Element) -> None:
        kind = element.WhichOneof("type")
        self.shown[place] = element.markdown.body if kind == "markdown" else str(kind)
        if kind == "exception":
            self.errors.append(f"{element.exception.type}: {element.exception.message}")
        if kind == "bidi_component" and element.bidi_component.component_name.endswith("explorer"):
            self._id = element.bidi_component.id
            self.explorer = json.loads(element.bidi_component.json)
            if self._heard.picture is None and self._expected and self._expected(self.explorer):
                self._heard.picture = time.perf_counter() - self._heard.at

    def _finish(self, status: int, fragments: Collection[str]) -> None:
        if status == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
            self.errors.append("a script did not compile")
        if status == ForwardMsg.FINISHED_SUCCESSFULLY:
            self.runs += 1
            self._kept = {hash: kept for hash, kept in self._kept.items() if self.runs - kept[0] <= KEPT_RUNS}
        elif status != ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY or self._acted not in fragments:
            return
        if self._expected is None or self._heard.picture is not None:
            self._heard.finished = time.perf_counter() - self._heard.at

    def _stop_timers(self, fragment: str | None = None) -> None:
        for name in [fragment] if fragment else list(self._timers):
            if name and (timer := self._timers.pop(name, None)) is not None:
                timer.cancel()

    async def _again(self, fragment: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self._send(ClientState(), fragment)


def value_of(prior: Prior) -> dict[str, Any]:
    """A prior as the browser sends it."""
    return {"family": prior.family, "numbers": list(prior.numbers)}


def _numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"family": entry["family"], "numbers": entry["numbers"]}


def _anything(data: Mapping[str, Any]) -> bool:
    return True


def _shows(data: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    found = (data.get("posterior") or {}).get("priors", {})
    return all(found.get(name) == wanted for name, wanted in value.items())
