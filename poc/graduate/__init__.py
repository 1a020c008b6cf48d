"""From this kit to TRL: the folder that goes on with a run there, and the rewards as TRL's trainer calls them.

    folder      `poc graduate`: writes it        origin, prompts, settings   what goes into it
    adapter     the rewards in TRL's trainer     groups, statistics          what they are computed from
    trl/        the script, its page, configurations of accelerate: copied or filled in, not imported

Not here: TRL itself. Nothing in this package imports it, only the script does.
"""
