import hypothesis

# How long an example takes says nothing on a machine that is busy with others.
hypothesis.settings.register_profile("trio_feed", deadline=None)
hypothesis.settings.load_profile("trio_feed")
