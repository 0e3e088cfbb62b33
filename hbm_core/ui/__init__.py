"""Everything that imports Streamlit, except the pages themselves."""
