"""The eight-agent demo that `mq demo` plays: a scene is written, criticised, rewritten and passed, all over MCP.

Needs the extra `[demo]` (Pydantic AI); no network and no language model. `story` holds the text, `craft` and `critics`
what each agent does with its mail, `assessment` the checks, `agents` the loop around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tools.swarm.agents import Member, PlayFailed, ScriptedAgent, Writer
from tools.swarm.roles import AGENTS, ROLES
from tools.swarm.story import SCENE

__all__ = ["ROSTER", "SCENE", "PlayFailed", "Stalled", "play"]

ROSTER = {name: role.description for name, role in ROLES.items()}
"""The production's channels and what each is for, as for the `[channels]` table of mq.toml."""


class Stalled(PlayFailed):
    """A play that was not over by its deadline."""

    def __init__(self, deadline_s: float, members: Iterable[Member]) -> None:
        states = "; ".join(f"{member.name}: {member.state}" for member in members if member.state != "done")
        super().__init__(f"The scene was not final after {deadline_s:g} s. {states}")


async def play(
    url: str,
    report: Callable[[str], None],
    *,
    scene: str = SCENE,
    pace_s: float = 0.0,
    deadline_s: float = 120.0,
    agents: Iterable[str] = AGENTS,
) -> str:
    """Play one scene from the writer's brief to `finalize`.

    Args:
        url: The server's MCP address, as `http://127.0.0.1:8004/mcp`; each member connects with `?as=` its name.
        report: Called with one line for each message posted.
        scene: The slug of the scene.
        pace_s: Seconds between an agent's getting a message and answering it, so that a person can follow.
        deadline_s: Seconds after which the play is given up.
        agents: Those that play here; the others connect from elsewhere, as processes of their own.

    Returns:
        The slug of the scene.

    Raises:
        Stalled: It wasn't over by the deadline; says who was waiting for what.
        PlayFailed: The server can't be reached, went away or refused a call, or a message can't be answered; says who
            noticed.
    """
    writer = Writer(url, report, pace_s)
    cast = [ScriptedAgent(name, url, report, pace_s) for name in agents]
    brief: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for agent in cast:
                group.create_task(agent.play(brief), name=agent.name)
            brief.set_result(await writer.commission(scene))
            await writer.play(brief)
    except TimeoutError as timeout:
        raise Stalled(deadline_s, [writer, *cast]) from timeout
    except ExceptionGroup as failures:
        known = failures.subgroup(PlayFailed)
        if known is None:
            raise
        raise known.exceptions[0] from failures
    return scene
