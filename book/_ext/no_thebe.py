"""Leave Thebe (live code in the page) out: its scripts come from another host, this book does not
offer it, and Jupyter Book puts its settings on every page twice, which is a JavaScript error.
"""


def drop_thebe(app, pagename, templatename, context, doctree):
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body')}"
    ]


def setup(app):
    app.connect("html-page-context", drop_thebe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
